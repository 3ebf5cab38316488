"""From the records of PyTorch's pickles to tensors, and what of them cannot be one.

Source: the arguments of the functions that ``torch.Tensor.__reduce_ex__`` names
(``torch._utils._rebuild_*``), and the identifiers that ``torch.serialization`` gives storages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.sources.inert_pickle import External, Made, Name
from passl.checkpoint.sources.spans import DTYPES, Damage, Span, Stored
from passl.errors import CheckpointError

__all__ = ["StorageKey", "TorchTensors", "storage_of"]

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_UTILS = "torch._utils"
_WITH_DTYPE = f"{_UTILS}._rebuild_tensor_v3"
_WITH_STORAGE = (f"{_UTILS}._rebuild_tensor", f"{_UTILS}._rebuild_tensor_v2", _WITH_DTYPE)
_AROUND = (f"{_UTILS}._rebuild_parameter", f"{_UTILS}._rebuild_parameter_with_state")
_OF_TYPE = "torch._tensor._rebuild_from_type_v2"
#: Kinds of tensors that are no plain array -> what to do about it.
_OTHER_KINDS = {
    "_rebuild_sparse_tensor": ("sparse", "tensor.to_dense()"),
    "_rebuild_sparse_csr_tensor": ("sparse", "tensor.to_dense()"),
    "_rebuild_qtensor": ("quantized", "tensor.dequantize()"),
    "_rebuild_nested_tensor": ("nested", "one tensor each"),
    "_rebuild_meta_tensor_no_storage": ("without values (device 'meta')", "the loaded model"),
    "_rebuild_device_tensor_from_numpy": ("of an accelerator", "tensor.cpu()"),
    "_rebuild_device_tensor_from_cpu_tensor": ("of an accelerator", "tensor.cpu()"),
    "_rebuild_wrapper_subclass": ("of a special class", "a plain tensor"),
}

#: Type and key of a storage, number of its elements, and the part of it that is meant.
StorageKey = tuple[str, str, int, Optional[tuple[int, int]]]


class TorchTensors:
    """Knows a tensor when it sees one; the ``to_tensor`` of :func:`find_tensors`.

    Args:
        find: key of a storage and its element type -> its bytes.
        path: for messages.
        order: byte order of the storages.
    """

    def __init__(self, find: Callable[[str, str], Span], path: Path, order: str = "<") -> None:
        self._find, self._path, self._order = find, path, order

    def __call__(self, value: Any) -> Optional[Stored]:
        """The tensor of a record; None if it is none.

        Raises:
            CheckpointError: a tensor of a kind that is no plain array.
            Damage: its record makes no sense.
        """
        if not isinstance(value, Made):
            return None
        maker = str(value.maker)
        for _ in range(8):  # a parameter of a tensor of a type: more is a circle
            if maker in _AROUND and value.args and isinstance(value.args[0], Made):
                value = value.args[0]
            elif maker == _OF_TYPE and len(value.args) >= 3 and isinstance(value.args[0], Name):
                value = Made(value.args[0], tuple(value.args[2]))
            else:
                break
            maker = str(value.maker)
        if maker in _WITH_STORAGE:
            return self._stored(maker, value.args)
        if value.maker.module == _UTILS and value.maker.name in _OTHER_KINDS:
            raise CheckpointError(_unusual(self._path, value.maker.name))
        return None

    def _stored(self, maker: str, args: tuple[Any, ...]) -> Stored:
        storage, offset, shape, strides = args[:4]
        storage_type, key, _, part = storage_of(storage, self._path)
        metadata = args[7] if maker == _WITH_DTYPE and len(args) > 7 else None
        if maker != _WITH_DTYPE and len(args) > 6:
            metadata = args[6]
        if metadata and any(metadata.values()):
            raise CheckpointError(
                f"{self._path}: holds tensors that are conjugated or negated in name only. Where "
                "torch is installed, save tensor.resolve_conj().resolve_neg() in their place."
            )
        data = self._find(key, storage_type)
        dtype = self._element_type(args[6]) if maker == _WITH_DTYPE else storage_type
        if part is not None:
            offset += part[0]
        return Stored(dtype, tuple(shape), data, self._order, offset, tuple(strides))

    def _element_type(self, name: Any) -> str:
        known = {"float": "float32", "double": "float64", "half": "float16", "long": "int64"}
        text = name.name if isinstance(name, Name) else str(name)
        text = known.get(text, text)
        if text not in DTYPES:
            raise CheckpointError(
                f"{self._path}: holds tensors of type {text}, which cannot be read. Where torch is "
                "installed, save tensor.to(torch.float32) in their place."
            )
        return text


def storage_of(value: Any, path: Path) -> StorageKey:
    """What the identifier of a storage says.

    Raises:
        Damage: it is no identifier of a storage.
        CheckpointError: its elements are quantized.
    """
    if not isinstance(value, External) or not isinstance(value.pid, tuple) or len(value.pid) < 5:
        raise Damage("a tensor without a storage")
    kind, storage_type, key, _, size = value.pid[:5]
    view = value.pid[5] if len(value.pid) > 5 else None
    if kind != "storage" or not isinstance(storage_type, Name) or type(size) is not int:
        raise Damage("a tensor without a storage")
    if storage_type.name.startswith("Q"):
        raise CheckpointError(_unusual(path, "_rebuild_qtensor"))
    if storage_type.name not in _STORAGES or storage_type.module.split(".")[0] != "torch":
        raise Damage(f"a storage of type {storage_type}")
    part = None
    if view is not None:
        _, start, length = view
        if type(start) is not int or type(length) is not int or start < 0:
            raise Damage("a part of a storage without proper numbers")
        part = (start, length)
    return _STORAGES[storage_type.name], str(key), size, part


def _unusual(path: Path, maker: str) -> str:
    kind, remedy = _OTHER_KINDS[maker]
    return (
        f"{path}: holds tensors that are {kind}, which are no plain arrays. "
        f"Where torch is installed, save {remedy} in their place."
    )
