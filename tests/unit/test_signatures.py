"""Signatures read from source text, and the types they admit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from passl.signatures import MISSING, SignatureError, scan_files
from passl.typespec import parse_annotation

SOURCE = '''
from passl.registry import LOSSES, MODELS, Range, Runtime
_BASE = dict(depth=12, width=768)

@LOSSES.register(aliases=("cross_entropy",))
class CELoss:
    """Cross entropy.

    Args:
        epsilon: label smoothing,
            in [0, 1).
        classes: number of classes.
    """
    def __init__(
        self,
        *,
        classes: Annotated[int, Runtime()],
        epsilon: Annotated[float, Range(0, 1, max_open=True)] = 0.0,
    ):
        pass

class Net:
    """A net."""
    def __init__(self, *, depth: int, width: int = 2 ** 4, act: Literal["gelu", "relu"] = "gelu"):
        pass

MODELS.variant("Net_base", Net, **_BASE, aliases=("net",))
'''


def scan(tmp_path: Path, source: str) -> dict[str, object]:
    file = tmp_path / "module.py"
    file.write_text(source)
    return {
        spec.name: spec for spec in scan_files([file], {"LOSSES": "losses", "MODELS": "models"})
    }


def test_reads_names_types_defaults_and_docs_without_importing(tmp_path):
    specs = scan(tmp_path, SOURCE)
    loss = specs["CELoss"]
    assert loss.aliases == ("cross_entropy",)
    assert [p.name for p in loss.configurable] == ["epsilon"]
    assert loss.param("classes").runtime
    assert loss.param("epsilon").doc == "label smoothing, in [0, 1)."
    assert loss.param("epsilon").type.describe() == "a number of at least 0 and below 1"
    assert loss.where.endswith("module.py:6")


def test_a_variant_is_its_class_with_other_defaults(tmp_path):
    net = scan(tmp_path, SOURCE)["Net_base"]
    assert {p.name: p.default for p in net.params} == {"depth": 12, "width": 768, "act": "gelu"}
    assert net.aliases == ("net",)
    assert net.qualname == "Net"
    assert net.defined_in == net.module


def test_a_variant_of_an_imported_class_is_declared_here_and_defined_there(tmp_path, monkeypatch):
    (tmp_path / "variant_target.py").write_text(
        "_WIDTH = 8\n"
        "class Far:\n    def __init__(self, width: int = _WIDTH, depth: int = 1): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source = "from variant_target import Far\nMODELS.variant('Far_deep', Far, depth=9)\n"
    far = scan(tmp_path, source)["Far_deep"]
    assert {param.name: param.default for param in far.params} == {"width": 8, "depth": 9}
    assert (far.module, far.defined_in, far.qualname) == ("module", "variant_target", "Far")
    assert far.where.endswith("module.py:2")


def test_a_constructor_is_inherited_from_another_module_of_the_package(tmp_path, monkeypatch):
    package = tmp_path / "heirs"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "base.py").write_text(
        "_WIDTH = 8\n"
        "class Base:\n"
        '    """A base.\n\n    Args:\n        width: how wide.\n        depth: how deep.\n    """\n'
        "    def __init__(self, width: int = _WIDTH, depth: int = 1): pass\n"
    )
    source = (
        "from heirs.base import Base\nfrom .base import Base as Other\nfrom .base import Base\n"
        "@MODELS.register()\n"
        'class Heir(Base):\n    """An heir.\n\n    Args:\n        depth: deeper.\n    """\n'
    )
    (package / "heir.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    (heir,) = scan_files([package / "heir.py"], {"MODELS": "models"}, module="heirs.heir")
    assert [(param.name, param.default, param.doc) for param in heir.params] == [
        ("width", 8, "how wide."),
        ("depth", 1, "deeper."),
    ]


@pytest.mark.parametrize(
    ("imported", "base"), [("Schedule", "Schedule"), ("Schedule as Base", "Base")]
)
def test_a_base_may_have_the_name_of_its_heir_or_one_of_its_own(tmp_path, imported, base):
    source = (
        f"from passl.schedules.base import {imported}\n"
        f"@LOSSES.register()\nclass Schedule({base}):\n    pass\n"
    )
    heir = scan(tmp_path, source)["Schedule"]
    assert {"total_steps", "steps_per_epoch"} <= {param.name for param in heir.params}


@pytest.mark.parametrize(
    ("base", "runtime"),
    [
        ("passl.logs.writers.base.Writer", {"run_dir"}),
        ("passl.optim.base.Optimizer", {"groups"}),
        ("passl.schedules.base.Schedule", {"total_steps", "steps_per_epoch"}),
    ],
)
def test_what_the_engine_gives_to_a_base_is_given_to_its_heirs(tmp_path, base, runtime):
    module, _, name = base.rpartition(".")
    source = f"from {module} import {name}\n@LOSSES.register()\nclass Heir({name}):\n    pass\n"
    heir = scan(tmp_path, source)["Heir"]
    assert {param.name for param in heir.params if param.runtime} == runtime


def test_a_base_class_of_another_package_is_not_looked_for(tmp_path):
    source = "from json.tool import Base\n@MODELS.register()\nclass Heir(Base):\n    pass\n"
    before = set(sys.modules)
    assert scan(tmp_path, source)["Heir"].params == ()
    assert "json.tool" not in set(sys.modules) - before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "@LOSSES.register()\nclass A:\n    def __init__(self, **kw): pass\n",
            "3: A: *kw would accept any misspelled key in silence",
        ),
        ("@LOSSES.register()\ndef a(x): pass\n", "2: a: argument 'x' needs a type annotation"),
        (
            "@LOSSES.register()\ndef a(x: int = f()): pass\n",
            "2: 'f()' must be a literal, so that it can be read without running the module",
        ),
        (
            "@LOSSES.register()\ndef a(x: (1, 2)): pass\n",
            "2: a.x: annotation '(1, 2)' is not one a config can be checked against",
        ),
        (
            "MODELS.variant('N', Elsewhere, depth=1)\n",
            "1: variant 'N': its class must be defined in this module, or imported into it by "
            "`from module import Class`",
        ),
        (
            "class N:\n    def __init__(self, a: int = 1): pass\nMODELS.variant('N1', N, b=2)\n",
            "3: variant 'N1': N has no argument ['b']",
        ),
    ],
)
def test_a_signature_that_cannot_be_a_schema_is_refused_with_its_line(tmp_path, source, message):
    with pytest.raises(SignatureError) as error:
        scan(tmp_path, source)
    assert str(error.value) == f"{tmp_path / 'module.py'}:{message}"


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        ("float", 3, 3.0),
        ("int", 1e4, 10000),
        ("Optional[int]", None, None),
        ("int | None", 4, 4),
        ("tuple[float, float]", [1, 2], (1.0, 2.0)),
        ("tuple[int, ...]", [1, 5], (1, 5)),
        ("Union[int, Sequence[int]]", [1, 2], [1, 2]),
        ("Union[float, int]", 3, 3),
        ("Literal['a', 1]", 1, 1),
        ("dict[str, float]", {"x": 1}, {"x": 1.0}),
        ("Annotated[Optional[int], Range(min=1)]", None, None),
        ("'list[str]'", ["x"], ["x"]),
    ],
)
def test_lossless_values_are_taken_as_the_annotated_type(annotation, value, result):
    converted, problems = parse_annotation(annotation).check(value)
    assert problems == []
    assert converted == result
    assert type(converted) is type(result)


@pytest.mark.parametrize(
    ("annotation", "value", "path", "message"),
    [
        ("int", "3", (), "expected a whole number, found '3' (text)"),
        ("int", 2.5, (), "expected a whole number, found 2.5"),
        ("int", True, (), "expected a whole number, found true"),
        ("bool", "off", (), "expected true or false, found 'off' (text)"),
        ("bool", 1, (), "expected true or false, found 1"),
        ("float", float("nan"), (), "expected a number, found nan"),
        ("str", 3, (), "expected text, found 3"),
        ("Annotated[int, Range(min=1)]", 0, (), "expected a whole number of at least 1, found 0"),
        (
            "Annotated[float, Range(min=0, min_open=True)]",
            0,
            (),
            "expected a number above 0, found 0",
        ),
        (
            "Annotated[Optional[int], Range(min=1)]",
            0,
            (),
            "expected a whole number of at least 1, found 0",
        ),
        ("Literal['epoch', 'step']", "epochs", (), "expected epoch or step, found 'epochs' (text)"),
        ("list[int]", [1, "a"], (1,), "expected a whole number, found 'a' (text)"),
        ("Union[int, list[int]]", [1, "a"], (1,), "expected a whole number, found 'a' (text)"),
        (
            "Union[int, list[int]]",
            "a",
            (),
            "expected a whole number or a list of whole numbers, found 'a' (text)",
        ),
        ("tuple[float, float]", [1], (), "expected [number, number], found [1]"),
        ("dict[str, int]", [1], (), "expected a mapping, found [1]"),
        ("dict[str, int]", {"a": None}, ("a",), "expected a whole number, found null"),
    ],
)
def test_a_wrong_value_is_described_with_its_place(annotation, value, path, message):
    _, problems = parse_annotation(annotation).check(value)
    assert [(p.path, p.message) for p in problems] == [(path, message)]


def test_an_unknown_annotation_is_opaque_and_its_required_default_is_told_apart():
    assert parse_annotation("np.ndarray").kind == "opaque"
    assert repr(MISSING) == "required"
