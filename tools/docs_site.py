"""What MkDocs does not do by itself for the documentation; named under ``hooks`` in mkdocs.yml.

Pages link to files that are not in ``docs/``: recipes, the benchmarks, CONTRIBUTING. On a code host
these links work as they are. For the site each such file becomes a page below ``repository/``, and
the links lead there. Anchors are made as code hosts make them, so that one link serves both.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from pathlib import Path
from typing import Any, Optional

__all__ = ["anchor", "on_config", "on_files", "on_page_content", "on_page_markdown", "site_path"]

_REPO = Path(__file__).resolve().parents[1]
_FOLDER = "repository/"
_LINK = re.compile(r"\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
_CELL = re.compile(r"<td\b.*?</td>", re.DOTALL)
_CODE = re.compile(r"<code>(.*?)</code>")
_BETWEEN_WORDS = re.compile(r"(?<=[a-zA-Z_\])*][./=])(?=[\w\[{*])|(?<=\w,)(?=[a-z])")
_FLAG = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sh": "bash", ".sbatch": "bash"}


def anchor(heading: str, separator: str = "-") -> str:
    """The anchor of a heading, as GitHub and Gitee make it.

    Args:
        heading: its text.
        separator: what stands for a space.
    """
    kept = [
        letter
        for letter in heading.strip().lower()
        if letter in " -_" or unicodedata.category(letter)[0] in "LN"
    ]
    return "".join(kept).replace(" ", separator)


def site_path(path: str) -> Optional[str]:
    """Where a file of the repository is on the site, as the path of a source file.

    Args:
        path: of the file or folder, from the root of the repository.

    Returns:
        The path below the site's sources; None if there is no such file.
    """
    if path.startswith("docs/"):
        return path[len("docs/") :]
    if (_REPO / path).is_dir():
        path = posixpath.join(path, "README.md")
    if not (_REPO / path).is_file():
        return None
    return _FOLDER + path + ("" if path.endswith(".md") else ".md")


def on_config(config: Any) -> Any:
    """Let the table of contents use our anchors."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = anchor
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add a page for every file outside of ``docs/`` that a page links to, directly or not."""
    from mkdocs.structure.files import File

    todo = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen: set[str] = set()
    while todo:
        page = todo.pop()
        text = (_REPO / page).read_text(encoding="utf-8")
        for found in _LINK.finditer(text) if page.endswith(".md") else ():
            path = _repository_path(page, found["target"])
            if path is None or path in seen or path.startswith("docs/"):
                continue
            seen.add(path)
            place = site_path(path)
            if place is not None:
                source = place[len(_FOLDER) :]
                source = source if (_REPO / source).is_file() else source[: -len(".md")]
                files.append(File.generated(config, place, content=_content(source)))
                todo.append(source)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead the links of a page to where their files are on the site."""
    here: str = page.file.src_uri
    at_home = here[len(_FOLDER) :] if here.startswith(_FOLDER) else f"docs/{here}"

    def lead(found: re.Match[str]) -> str:
        path = _repository_path(at_home, found["target"])
        place = site_path(path) if path is not None else None
        if place is None or path is None:
            return found[0]  # another site, or a broken link that the build then reports
        if path.startswith("docs/") and here == place:
            return found[0]
        target = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"]({target}{found['anchor'] or ''})"

    return _LINK.sub(lead, markdown)


def _repository_path(page: str, target: str) -> Optional[str]:
    """From the root of the repository; None for an address."""
    if re.match(r"[a-z]+:", target):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def _content(source: str) -> str:
    text = (_REPO / source).read_text(encoding="utf-8")
    if source.endswith(".md"):
        return text
    language = _LANGUAGES.get(Path(source).suffix, "text")
    return f"# {source}\n\n````{language}\n{text.rstrip()}\n````\n"


def on_page_content(html: str, **_: Any) -> str:
    """Let keys in tables be broken after dots, slashes and equal signs, and flags not at all.

    A code host takes the backslash off a bar in code within a table; Python-Markdown leaves it.
    """
    return _CELL.sub(lambda cell: _CODE.sub(_breakable, cell[0]), html)


def _breakable(code: re.Match[str]) -> str:
    text = code[1].replace(r"\|", "|")
    if re.fullmatch(r"--?[\w-]+", text):
        return f'<code class="flag">{text}</code>'
    whole = _FLAG.sub(r'<span class="flag">\g<0></span>', _BETWEEN_WORDS.sub("<wbr>", text))
    return f"<code>{whole}</code>"
