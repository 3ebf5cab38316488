"""Configs by name: ``ViT_base_patch16_224`` is a file that ships with PASSL, from any folder.

In a checkout the files are those of ``configs/`` and ``tasks/``; an installed package carries
copies of both in ``passl/_shipped`` (setup.py), laid out alike, so that bases relative to a file
resolve. A name is the path below ``configs/`` without ``.yaml`` (``quickstart/ViT_micro_digits``),
or its last part where only one file has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Optional

from passl.config.suggest import nearest, one_of

__all__ = [
    "FoundConfig",
    "find_config_file",
    "name_of",
    "shipped_configs",
    "shipped_file",
    "ships_note",
    "unknown_name",
]

_PACKAGE = Path(__file__).resolve().parents[1]
_SUFFIXES = (".yaml", ".yml")
#: Parts that other configs are made of; by name only for ``_base_``.
_PARTS = "_base_"


@dataclass(frozen=True)
class FoundConfig:
    """The file that a person means.

    Attributes:
        path: the file.
        name: its name, where it was found by that.
        note: what is worth saying of the choice; empty if nothing is.
    """

    path: Path
    name: Optional[str] = None
    note: str = ""


def find_config_file(text: str | Path) -> FoundConfig:
    """The file behind what stands after ``-c``: a path that exists, else a config that ships.

    Args:
        text: a path, or a name with or without ``.yaml``. The path is returned as it is where
            neither fits, for the reader to say so.
    """
    typed = Path(text)
    shipped = shipped_file(str(text))
    if typed.suffix not in _SUFFIXES and not typed.is_file():
        beside = typed.with_name(f"{typed.name}.yaml") if typed.name else typed
        if beside.is_file():
            return FoundConfig(beside, note=_shadow_note(beside, shipped))
    if typed.is_file() or (typed.exists() and shipped is None):
        return FoundConfig(typed, note=_shadow_note(typed, shipped))
    if shipped is None:
        return FoundConfig(typed)
    return FoundConfig(shipped, name_of(shipped), ships_note(str(text)))


def ships_note(typed: str) -> str:
    """What to say where a file was named, perhaps one's own, and the shipped one is taken."""
    if Path(typed).suffix not in _SUFFIXES:
        return ""
    return f"{typed}: there is no such file here; the config of that name that ships is read"


def shipped_file(name: str) -> Optional[Path]:
    """The shipped file called ``name`` (with or without ``.yaml``, parts below ``_base_`` too)."""
    return _index().get(_bare(name))


def shipped_configs() -> dict[str, Path]:
    """``name -> file`` of every config that a command can run, sorted."""
    return {
        name: path
        for name, path in sorted(_files().items(), key=lambda item: item[0].lower())
        if not name.startswith(f"{_PARTS}/")
    }


def name_of(path: Path) -> Optional[str]:
    """The name of a shipped file; None for any other."""
    resolved = path.resolve()
    return next((name for name, file in _files().items() if file == resolved), None)


def unknown_name(text: str) -> str:
    """The end of the message that there is no such file: what ships, or is called alike."""
    inside = _below_root(Path(text))
    if inside is not None:
        return f"; that one ships with PASSL: give its name, {inside}"
    close = nearest(_bare(text), _index())
    names = list(dict.fromkeys(name_of(_index()[name]) or name for name in close))
    if names:
        shown = one_of([repr(name) for name in names])
        return f"; of the configs that ship with PASSL, did you mean {shown}?"
    return "" if "/" in text else "; passl-config list shows the configs that ship with PASSL"


def _shadow_note(path: Path, shipped: Optional[Path]) -> str:
    if shipped is None or path.resolve() == shipped:
        return ""
    return f"{path}: this file is read, not the config of the same name that ships with PASSL"


def _bare(text: str) -> str:
    for suffix in _SUFFIXES:
        text = text.removesuffix(suffix)
    return text


def _below_root(path: Path) -> Optional[str]:
    """The name behind ``configs/X.yaml``, wherever the command was started."""
    if path.is_absolute() or path.suffix not in _SUFFIXES:
        return None
    root = _root()
    inside = root / path if root is not None and ".." not in path.parts else None
    return name_of(inside) if inside is not None and inside.is_file() else None


@cache
def _root() -> Optional[Path]:
    """The folder with ``configs`` and ``tasks``; None in an installation without them."""
    for folder in (_PACKAGE / "_shipped", _PACKAGE.parent):
        if (folder / "configs" / _PARTS).is_dir():
            return folder
    return None


@cache
def _files() -> dict[str, Path]:
    root = _root()
    if root is None:
        return {}
    configs = root / "configs"
    found = {_bare(path.relative_to(configs).as_posix()): path for path in configs.rglob("*.yaml")}
    for path in root.glob("tasks/**/configs/*.yaml"):
        found.setdefault(path.stem, path)
    return found


@cache
def _index() -> dict[str, Path]:
    """:func:`_files`, and by the last part of a name where that is enough."""
    files = _files()
    stems: dict[str, list[Path]] = {}
    for name, path in files.items():
        if not name.startswith(f"{_PARTS}/"):
            stems.setdefault(path.stem, []).append(path)
    alone = {stem: paths[0] for stem, paths in stems.items() if len(paths) == 1}
    return {**alone, **files}
