"""Finding the weights among what else a training script saved.

Tried in this order, at the top and again inside what was found: ``model``, ``state_dict``, ``net``,
``network``, ``module``, ``params``, ``weights``, ``teacher``, ``student``, then the averaged
ones ``model_ema``, ``state_dict_ema``, ``ema``.  A file of one unknown entry that holds tensors
is unwrapped as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.sources.inert_pickle import External, LazyText, Made, Name
from passl.checkpoint.sources.source import MAX_TENSORS
from passl.checkpoint.sources.spans import Damage, Stored
from passl.errors import CheckpointError

__all__ = ["OTHER_WEIGHTS", "WRAPPERS", "Found", "ToTensor", "find_tensors"]

#: Keys under which training scripts keep weights, in the order in which they are tried.
WRAPPERS = (
    "model",
    "state_dict",
    "net",
    "network",
    "module",
    "params",
    "weights",
    "teacher",
    "student",
    "model_ema",
    "state_dict_ema",
    "ema",
)
#: In the description of an entry that was not chosen though it could have been.
OTHER_WEIGHTS = "weights too"
#: Parts of keys of what is no weight though it holds tensors.
_NOT_WEIGHTS = ("optim", "scaler", "sched", "rng", "random")
_MAX_DEPTH = 16
_MAX_SEEN = 1_000_000

#: The tensor that an entry stands for; None if it stands for something else.
ToTensor = Callable[[Any], Optional[Stored]]


@dataclass
class Found:
    """Tensors of a file.

    Args:
        wrapper: keys that lead to them, joined by ``/``.
        tensors: name -> tensor; names of nested dictionaries are joined by ``/``.
        ignored: other entries, with the keys that lead to them -> what they are.
    """

    wrapper: str
    tensors: dict[str, Stored]
    ignored: dict[str, str]


def find_tensors(content: Any, path: Path, to_tensor: ToTensor, wrapper: Optional[str]) -> Found:
    """Choose the weights of what a pickle describes.

    Args:
        content: the object of the pickle.
        path: for messages.
        to_tensor: tells tensors from everything else.
        wrapper: keys, joined by ``/``, to be followed instead of the default order.

    Raises:
        CheckpointError: there are no tensors by name, or no such wrapper.
        Damage: entries without end.
    """
    keys: list[str] = []
    ignored: dict[str, str] = {}
    table = _top(content, path, to_tensor)
    for key in [] if not wrapper else wrapper.split("/"):
        inner = _table(table.get(key))
        if inner is None:
            raise CheckpointError(_no_such_wrapper(path, wrapper or "", table))
        _descend(table, key, keys, ignored, to_tensor)
        table = inner
    for _ in range(_MAX_DEPTH):
        found = _next_wrapper(table, to_tensor)
        if found is None:
            break
        _descend(table, found, keys, ignored, to_tensor)
        table = _table(table[found]) or {}
    tensors: dict[str, Stored] = {}
    _collect(table, tensors, ignored, to_tensor, keys)
    if not tensors:
        raise CheckpointError(_no_tensors(path, content, table))
    return Found("/".join(keys), tensors, ignored)


def _top(content: Any, path: Path, to_tensor: ToTensor) -> dict[Any, Any]:
    if to_tensor(content) is not None:
        raise CheckpointError(
            f"{path}: holds one tensor without a name. Save a dictionary of tensors by name."
        )
    if _is_module(content):
        raise CheckpointError(_whole_model(path, content))
    table = _table(content)
    if table is None:
        raise CheckpointError(
            f"{path}: holds {_describe(content, to_tensor)}, not tensors by name."
        )
    return table


def _descend(
    table: dict[Any, Any],
    key: str,
    keys: list[str],
    ignored: dict[str, str],
    to_tensor: ToTensor,
) -> None:
    """Note what is left behind beside ``key``."""
    for other, value in table.items():
        if other != key:
            path = "/".join([*keys, _text(other)])
            what = _describe(value, to_tensor)
            if _text(other) in WRAPPERS and _holds_tensors(value, to_tensor):
                what += f", {OTHER_WEIGHTS}: --wrapper {path} takes them instead"
            ignored[path] = what
    keys.append(key)


def _next_wrapper(table: dict[Any, Any], to_tensor: ToTensor) -> Optional[str]:
    for key in WRAPPERS:
        if key in table and _holds_tensors(table[key], to_tensor):
            return key
    if any(to_tensor(value) is not None for value in table.values()):
        return None
    candidates = [
        key
        for key, value in table.items()
        if isinstance(key, str) and _may_be_weights(key) and _holds_tensors(value, to_tensor)
    ]
    return candidates[0] if len(candidates) == 1 else None


def _collect(
    table: dict[Any, Any],
    tensors: dict[str, Stored],
    ignored: dict[str, str],
    to_tensor: ToTensor,
    keys: list[str],
) -> None:
    """Tensors of the chosen level and of the dictionaries below it, in order."""
    stack: list[tuple[str, Any, int]] = [("", table, 0)]
    num_seen = 0
    while stack:
        name, value, depth = stack.pop()
        num_seen += 1
        if depth > _MAX_DEPTH or num_seen > _MAX_SEEN or len(tensors) > MAX_TENSORS:
            raise Damage("its entries are nested without end")
        tensor = to_tensor(value)
        if tensor is not None:
            if name in tensors:
                raise Damage(f"two tensors are called {name!r}")
            tensors[name] = tensor
        elif not name or (_may_be_weights(name) and _holds_tensors(value, to_tensor)):
            prefix = f"{name}/" if name else ""
            items = [(prefix + _text(key), item) for key, item in (_table(value) or {}).items()]
            stack.extend((key, item, depth + 1) for key, item in reversed(items))
        else:
            ignored["/".join([*keys, name])] = _describe(value, to_tensor)


def _holds_tensors(value: Any, to_tensor: ToTensor) -> bool:
    """Whether ``value`` is a dictionary with a tensor in it or below."""
    return any(to_tensor(item) is not None for item in _below(value))


def _below(value: Any) -> Iterator[Any]:
    """Everything in a dictionary and the dictionaries below it, each of these once."""
    seen: set[int] = set()
    stack = [_table(value)]
    while stack:
        table = stack.pop()
        if table is None or id(table) in seen:
            continue
        seen.add(id(table))
        if len(seen) > _MAX_SEEN:
            raise Damage("its entries are nested without end")
        for item in table.values():
            yield item
            stack.append(_table(item))


def _table(value: Any) -> Optional[dict[Any, Any]]:
    """The entries of a dictionary, also of one of another class (``defaultdict``)."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Made) and value.entries and not _is_module(value):
        return value.entries
    return None


def _may_be_weights(key: str) -> bool:
    return not any(part in key.lower() for part in _NOT_WEIGHTS)


def _is_module(value: Any) -> bool:
    return isinstance(value, Made) and isinstance(value.state, dict) and "_modules" in value.state


def _text(key: Any) -> str:
    if isinstance(key, bytes):
        return key.decode("latin-1")
    return key if isinstance(key, str) else f"{key}" if isinstance(key, int) else repr(key)[:80]


# -- words -----------------------------------------------------------------------------------------


def _describe(value: Any, to_tensor: ToTensor) -> str:
    try:
        tensor = to_tensor(value)
    except CheckpointError:  # such as a sparse one: nobody asked for its values
        return "a tensor of an unusual kind"
    if tensor is not None:
        return f"tensor of shape {tensor.shape}"
    if isinstance(value, (dict, list, tuple, set)):
        return f"{type(value).__name__} of {len(value)} {'entry' if len(value) == 1 else 'entries'}"
    if isinstance(value, Made):
        return str(value.maker)
    if isinstance(value, Name):
        return f"the name {value}"
    if isinstance(value, (External, LazyText)) or value is None:
        return {External: "a storage", LazyText: "a long text"}.get(type(value), "None")
    if isinstance(value, (bool, int, float)):
        return f"{type(value).__name__} {value}"[:60]
    return f"{type(value).__name__} {str(value)[:40]!r}"


def _whole_model(path: Path, module: Made) -> str:
    return (
        f"{path}: holds a whole pickled model ({module.maker}), which only its own code can read. "
        "Where that code and torch are installed, save the weights alone: "
        "torch.save(model.state_dict(), 'weights.pth')."
    )


def _no_such_wrapper(path: Path, wrapper: str, table: dict[Any, Any]) -> str:
    present = ", ".join(_text(key) for key, value in table.items() if _table(value) is not None)
    return f"{path}: there is no dictionary {wrapper!r} in it" + (
        f"; there is: {present[:300]}." if present else "."
    )


def _no_tensors(path: Path, content: Any, table: dict[Any, Any]) -> str:
    for value in (*table.values(), *(_table(content) or {}).values()):
        if _is_module(value):
            return _whole_model(path, value)
    keys = ", ".join(_text(key) for key in list(table)[:8])
    return f"{path}: holds no tensors by name (its entries: {keys or 'none'})."
