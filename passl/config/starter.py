"""A small config to start from: a base by name, and the keys that people change first."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from passl.config.config import Config
from passl.config.dump import emit
from passl.config.flat import differences
from passl.config.keys import Key, all_keys, without_places
from passl.config.loader import load_config
from passl.errors import ConfigError

__all__ = ["write_starter"]

#: What is changed first, in the order of the file. A key that the base does not have is left out.
_FIRST = (
    "Global.output_dir",
    "Global.device",
    "Global.seed",
    "Global.epochs",
    "Global.global_batch_size",
    "Global.micro_batch_size",
    "Global.pretrained_model",
    "Model.class_num",
    "Model.drop_path_rate",
    "FP16.level",
    "LRScheduler.learning_rate",
    "Optimizer.weight_decay",
    "DataLoader.Train.dataset.image_root",
    "DataLoader.Train.dataset.cls_label_path",
    "DataLoader.Train.dataset.root",
    "DataLoader.Train.sampler.batch_size",
    "DataLoader.Train.loader.num_workers",
    "DataLoader.Eval.dataset.image_root",
    "DataLoader.Eval.dataset.cls_label_path",
    "DataLoader.Eval.dataset.root",
    "DataLoader.Eval.sampler.batch_size",
)
#: Left out where they say nothing: the size of a batch is said in one place.
_ONLY_IF_SET = frozenset({"Global.global_batch_size", "DataLoader.Train.sampler.batch_size"})
_WIDTH = 98


def write_starter(path: Path, base: str, settings: Sequence[str] = ()) -> Config:
    """Write a config that begins with another one.

    Args:
        path: of the new file, which must not be there yet.
        base: a file, or the name of a config that ships.
        settings: texts such as ``Global.epochs=3``.

    Returns:
        the new file's config, equal to the base with the settings but for the output folder.

    Raises:
        ConfigError: the file is there, the base or a setting is wrong, or a setting cannot be said
            in a file that only adds to its base.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already; remove it, or choose another name")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}; make it first")
    own_folder = [f"Global.output_dir={json.dumps(f'./output/{path.stem}', ensure_ascii=False)}"]
    wanted = load_config(base, [*own_folder, *settings])
    text = _text(path, wanted, settings)
    try:
        _refuse_if_different(path, text, wanted)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return load_config(path)


def _text(path: Path, wanted: Config, settings: Sequence[str]) -> str:
    data = wanted.to_dict()
    paths = [one for one in _FIRST if _worth_writing(one, data)]
    paths += [_written_as(text, data) for text in settings]
    tree: dict[str, Any] = {}
    for one in dict.fromkeys(paths):
        _put(tree, one.split("."), _at(data, one.split(".")))
    base = wanted.source_name or os.path.relpath(str(wanted.source_path), path.parent)
    typed = shlex.quote(str(path))
    head = (
        f"# {path.stem}, which begins with {base}.\n#\n"
        f"#   passl-check -c {typed}\n#   passl-train -c {typed}\n#\n"
        f"# What is not here is as there: passl-config show -c {typed}\n"
        "# What a key means, and all that there are: passl-config explain KEY, docs/config.md\n"
    )
    lines = [head + emit({"_base_": base}).rstrip()]
    docs = _docs(data)
    for section, value in tree.items():
        lines.append("")
        _emit(lines, section, value, section, docs)
    return "\n".join(lines) + "\n"


def _worth_writing(path: str, data: Mapping[str, Any]) -> bool:
    found = _at(data, path.split("."))
    return found is not _MISSING and (found is not None or path not in _ONLY_IF_SET)


def _written_as(text: str, data: Mapping[str, Any]) -> str:
    """The path that a setting stands at in a file; of something in a list: the list's.

    Raises:
        ConfigError: a setting that takes away, or whose key has another name here.
    """
    path = text.partition("=")[0].strip()
    if path.startswith("~"):
        raise ConfigError(f"--set {text}: only KEY=VALUE; write {path[1:]}: null into the file")
    taken: list[str] = []
    node: Any = data
    for segment in path.lstrip("+").split("."):
        if isinstance(node, list):
            break
        if not isinstance(node, Mapping) or segment not in node:
            raise ConfigError(
                f"--set {text}: the resolved config has no {path}; passl-config explain {path} "
                "says what it is called here"
            )
        node = node[segment]
        taken.append(segment)
    return ".".join(taken)


class _Missing:
    pass


_MISSING = _Missing()


def _at(data: Any, segments: Sequence[str]) -> Any:
    for segment in segments:
        if not isinstance(data, Mapping) or segment not in data:
            return _MISSING
        data = data[segment]
    return data


def _put(tree: dict[str, Any], segments: Sequence[str], value: Any) -> None:
    for segment in segments[:-1]:
        tree = tree.setdefault(segment, {})
    tree[segments[-1]] = _Value(value)


class _Value:
    """A value of the file, as opposed to a mapping of sections."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _emit(lines: list[str], key: str, value: Any, path: str, docs: Mapping[str, Key]) -> None:
    indent = "  " * path.count(".")
    if isinstance(value, _Value):
        lines += _comment(docs.get(path), indent)
        lines += [f"{indent}{line}" for line in emit({key: value.value}).splitlines()]
        return
    lines.append(f"{indent}{key}:")
    for name, inner in value.items():
        _emit(lines, name, inner, f"{path}.{name}", docs)


def _comment(key: Optional[Key], indent: str) -> list[str]:
    if key is None or key.kind == "component":
        return []
    default = "" if not key.default else f"; default {key.default}".replace("default req", "req")
    text = f"{' '.join(key.doc.split())} ({key.takes}{default})"
    mark = f"{indent}# "
    return textwrap.wrap(text, _WIDTH, initial_indent=mark, subsequent_indent=mark)


def _docs(data: Mapping[str, Any]) -> dict[str, Key]:
    """``path -> key`` of what stands outside of lists, of the components that the config has."""
    docs: dict[str, Key] = {}
    for key in all_keys():
        path = without_places(key.written)
        named = _at(data, [*path.split(".")[:-1], "name"])
        if key.kind != "component" and key.owner in ("", named):
            docs.setdefault(path, key)
    return docs


def _refuse_if_different(path: Path, text: str, wanted: Config) -> None:
    """Raise where the file does not say what was asked for."""
    with tempfile.NamedTemporaryFile(
        "w", suffix=".yaml", dir=path.parent, delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    try:
        found = differences(wanted, load_config(file.name))
    finally:
        os.unlink(file.name)
    if found:
        keys = ", ".join(difference.path for difference in found[:6])
        raise ConfigError(
            f"{path}: a file that only adds to its base cannot say these settings: {keys}; leave "
            "them out of --set and write them into the file, with _delete_: true where needed"
        )
