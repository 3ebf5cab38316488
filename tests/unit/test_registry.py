"""Names -> components, without importing what is only looked up."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any

import pytest

from passl.registry import Component, Registry, RegistryError, Runtime, import_user_modules

USER_MODULE = '''
from typing import Annotated
from passl.registry import LOSSES, Range

@LOSSES.register()
class {name}:
    """Mine.

    Args:
        margin: how far.
    """
    def __init__(self, *, margin: Annotated[float, Range(min=0.0)] = 1.0) -> None:
        self.margin = margin
'''


def empty_registry() -> Registry:
    return Registry("losses", "loss", "no_such_folder")


def test_builds_by_name_and_alias_with_arguments_and_what_the_engine_supplies():
    registry = empty_registry()

    @registry.register("Named", aliases=("other",))
    class Thing:
        def __init__(self, *, size: int = 3, seed: Annotated[int, Runtime()] = 0) -> None:
            self.size, self.seed = size, seed

    built = registry.build({"name": "other", "size": 5}, seed=7, unrelated=1)
    assert (built.size, built.seed) == (5, 7)
    assert registry.names() == ["Named"]
    assert registry.all_names() == ["Named", "other"]


def test_nested_components_are_built_first():
    registry = empty_registry()

    @registry.register()
    class Outer:
        def __init__(self, *, inner: Annotated[Any, Component("losses")]) -> None:
            self.inner = inner

    built = registry.build({"name": "Outer", "inner": {"name": "CELoss", "epsilon": 0.25}})
    assert built.inner.epsilon == 0.25


def test_a_taken_name_is_refused():
    registry = empty_registry()
    registry.register("X")(lambda: None)
    with pytest.raises(RegistryError, match="the loss name 'X' is already taken by"):
        registry.register("X")(lambda: 1)


def test_a_signature_that_would_swallow_typos_is_refused():
    with pytest.raises(
        RegistryError, match=r"\*options would accept any misspelled key in silence"
    ):

        @empty_registry().register()
        def loose(**options: int) -> None: ...


def test_an_unannotated_argument_is_refused():
    with pytest.raises(RegistryError, match="argument 'x' needs a name and a type annotation"):

        @empty_registry().register()
        def untyped(x=1): ...


def test_a_variant_with_an_unknown_default_is_refused():
    def net(*, depth: int = 1) -> int:
        return depth

    registry = empty_registry()
    registry.variant("Net_2", net, depth=2)
    assert registry.build({"name": "Net_2"}) == 2
    assert registry.build({"name": "Net_2", "depth": 5}) == 5
    with pytest.raises(RegistryError, match=r"has no argument \['width'\]"):
        registry.variant("Net_3", net, width=3)


def test_an_unknown_name_lists_the_known_ones():
    registry = empty_registry()
    registry.register("A")(lambda: None)
    with pytest.raises(RegistryError, match="no loss is called 'B'; known: A"):
        registry.get("B")


def test_a_users_module_is_known_before_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "my_known_losses.py").write_text(USER_MODULE.format(name="MyKnownLoss"))
    monkeypatch.syspath_prepend(tmp_path)
    from passl.registry import LOSSES

    import_user_modules(["my_known_losses"])
    assert "my_known_losses" not in sys.modules
    assert LOSSES.spec("MyKnownLoss").param("margin").doc == "how far."
    assert LOSSES.build({"name": "MyKnownLoss", "margin": 2.0}).margin == 2.0


def test_a_users_component_may_not_take_a_name_of_ours(tmp_path, monkeypatch):
    (tmp_path / "my_clashing_losses.py").write_text(USER_MODULE.format(name="CELoss"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RegistryError, match="the loss name 'CELoss' is already taken by"):
        import_user_modules(["my_clashing_losses"])


def test_a_module_of_the_current_folder_is_found_behind_all_others(tmp_path, monkeypatch):
    package = tmp_path / "my_folder"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "losses.py").write_text(USER_MODULE.format(name="LossOfTheFolder"))
    monkeypatch.chdir(package)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with pytest.raises(RegistryError, match="neither in the current folder nor on PYTHONPATH"):
        import_user_modules(["my_folder.losses"])
    assert str(package) not in sys.path
    monkeypatch.chdir(tmp_path)
    import_user_modules(["my_folder.losses"], execute=True)
    from passl.registry import LOSSES

    assert LOSSES.build({"name": "LossOfTheFolder"}).margin == 1.0
    assert sys.path[-1] == str(tmp_path)


def test_a_missing_module_is_named():
    with pytest.raises(RegistryError, match="module 'no_such_module_here' is not found"):
        import_user_modules(["no_such_module_here"])


def test_looking_up_every_built_in_component_imports_neither_paddle_nor_numpy():
    code = (
        "import sys, passl.registry as r\n"
        "names = [n for reg in r.REGISTRIES.values() for n in reg.names()]\n"
        "assert len(names) > 20, names\n"
        "assert not {'paddle', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
