"""What the source of the package never does, and the size it keeps."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Optional, Union

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "passl"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FUNCTION_LINES, MAX_FILE_LINES = 80, 500

FORBIDDEN_CALLS = {
    "eval": "evaluates text as code",
    "exec": "runs text as code",
    "pickle.load": "runs code from the file",
    "pickle.loads": "runs code from the data",
    "paddle.load": "runs code from the file",
    "torch.load": "runs code from the file",
    "yaml.load": "builds any Python object; use passl.config's reader or yaml.safe_load",
    "yaml.unsafe_load": "builds any Python object",
    "yaml.full_load": "builds any Python object",
    "os.system": "goes through a shell",
    "os.popen": "goes through a shell",
}
# What is nevertheless right, and why.
EXCEPTIONS = {
    ("data/process_worker.py", "pickle.load"): (
        "an anonymous file in memory that the training process wrote for the process it starts, "
        "which alone inherits it; nobody else can name or write it"
    ),
}
_Definition = Union[ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(_tree(path)) if isinstance(node, ast.Call))


def test_nothing_is_executed_from_text_or_files() -> None:
    wrong = [
        f"{path}:{call.lineno}: {_dotted(call.func)} {FORBIDDEN_CALLS[_dotted(call.func)]}"
        for path in FILES
        for call in _calls(path)
        if _dotted(call.func) in FORBIDDEN_CALLS
        and (path.relative_to(PACKAGE).as_posix(), _dotted(call.func)) not in EXCEPTIONS
    ]
    wrong += [
        f"{path}:{call.lineno}: shell=True"
        for path in FILES
        for call in _calls(path)
        for keyword in call.keywords
        if keyword.arg == "shell"
        and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    ]
    assert not wrong, "\n".join(wrong)


def test_an_unpickler_decides_itself_what_a_file_may_name() -> None:
    wrong = [
        f"{path}:{node.lineno}: {node.name} has no find_class"
        for path in FILES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ClassDef)
        and any(_dotted(base).endswith("Unpickler") for base in node.bases)
        and "find_class" not in {getattr(item, "name", "") for item in node.body}
    ]
    wrong += [
        f"{path}:{call.lineno}: a plain Unpickler runs code from the file"
        for path in FILES
        for call in _calls(path)
        if _dotted(call.func) == "pickle.Unpickler"
    ]
    assert not wrong, "\n".join(wrong)


def test_only_commands_print() -> None:
    wrong = [
        f"{path}:{call.lineno}: log instead of printing"
        for path in FILES
        if path.relative_to(PACKAGE).parts[0] != "cli"
        for call in _calls(path)
        if _dotted(call.func) == "print"
    ]
    assert not wrong, "\n".join(wrong)


def test_no_exception_is_caught_without_a_name() -> None:
    wrong = [
        f"{path}:{node.lineno}: say which exceptions"
        for path in FILES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not wrong, "\n".join(wrong)


def test_a_function_fits_on_a_screen_and_a_file_is_one_idea() -> None:
    long = [
        f"{path}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in FILES
        for node in ast.walk(_tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno is not None
        and _code_lines(node) > MAX_FUNCTION_LINES
    ]
    for path in FILES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            long.append(f"{path} has {lines} lines")
    assert not long, "\n".join(long)


def test_what_is_public_says_what_it_does() -> None:
    missing = [
        f"{path}:{node.lineno}: {node.name} has no docstring"
        for path in FILES
        for node in _public_definitions(_tree(path).body, _exported(_tree(path)))
        if not ast.get_docstring(node)
    ]
    missing += [
        f"{path}: the module does not say what it is for"
        for path in FILES
        if path.stat().st_size and not ast.get_docstring(_tree(path))
    ]
    assert not missing, "\n".join(missing)


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert '"py.typed"' in (REPO / "setup.py").read_text()


def _code_lines(function: Union[ast.FunctionDef, ast.AsyncFunctionDef]) -> int:
    """Lines of the function without its docstring."""
    first, last = function.lineno, function.end_lineno
    assert last is not None
    docstring = function.body[0] if ast.get_docstring(function) else None
    taken = docstring.end_lineno - docstring.lineno + 1 if docstring and docstring.end_lineno else 0
    return last - first + 1 - taken


def _exported(tree: ast.Module) -> Optional[set[str]]:
    """What ``__all__`` lists; None for a module without."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and _dotted(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def _public_definitions(
    body: list[ast.stmt], exported: Optional[set[str]] = None
) -> Iterator[_Definition]:
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name.startswith("_") or _is_overload_or_setter(node):
                continue
            if exported is not None and node.name not in exported:
                continue
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public_definitions(node.body)


def _is_overload_or_setter(node: _Definition) -> bool:
    names = {_dotted(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return bool(names & {"overload", "setter"})
