"""A folder as LLaMA 7B was released, of which one block takes room on the disk.

    path/to/python-with-torch benchmarks/llama_folder.py FOLDER [--layers 32]

Width, shapes, names and type are LLaMA 7B's (13.5 GB with 32 blocks).  The last block holds random
numbers; the rest is a hole in the file, which reads as zeros.  ``torch.load`` takes it like any
other.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

DIM, HIDDEN, VOCABULARY = 4096, 11008, 32000
BLOCK = {
    "attention.wq": (DIM, DIM), "attention.wk": (DIM, DIM), "attention.wv": (DIM, DIM),
    "attention.wo": (DIM, DIM), "feed_forward.w1": (HIDDEN, DIM),
    "feed_forward.w2": (DIM, HIDDEN), "feed_forward.w3": (HIDDEN, DIM),
    "attention_norm": (DIM,), "ffn_norm": (DIM,),
}


def make_folder(folder: Path, layers: int) -> None:
    """Write ``consolidated.00.pth`` and ``params.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (VOCABULARY, DIM), "norm.weight": (DIM,),
        "output.weight": (VOCABULARY, DIM),
    }
    for layer in range(layers):
        shapes.update({f"layers.{layer}.{name}.weight": shape for name, shape in BLOCK.items()})
    weights = {name: torch.empty(shape, dtype=torch.float16) for name, shape in shapes.items()}
    pickled = io.BytesIO()
    pickler = _Pickler(pickled, protocol=2)
    pickler.dump(weights)  # the tensors were never touched: they take no memory
    numbers = {pickler.keys[id(weights[name])]: name for name in shapes}
    rng = np.random.default_rng(0)
    with _Zip(folder / "consolidated.00.pth") as archive:
        archive.add("archive/data.pkl", pickled.getvalue())
        archive.add("archive/version", b"3\n")
        for key, name in numbers.items():
            if name.startswith(f"layers.{layers - 1}."):
                values = rng.standard_normal(shapes[name], np.float32) * np.float32(0.02)
                archive.add(f"archive/data/{key}", values.astype(np.float16).tobytes())
            else:
                archive.add_hole(f"archive/data/{key}", 2 * int(np.prod(shapes[name])))
    params = {"dim": DIM, "multiple_of": 256, "n_heads": 32, "n_layers": layers, "norm_eps": 1e-6}
    (folder / "params.json").write_text(json.dumps(params), encoding="utf-8")


class _Pickler(pickle.Pickler):
    """Puts a number in place of each storage, as ``torch.save`` does."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.keys: dict[int, str] = {}

    def reducer_override(self, value: Any) -> Any:
        """Of a tensor: how torch makes it again."""
        if not isinstance(value, torch.Tensor):
            return NotImplemented
        key = self.keys.setdefault(id(value), str(len(self.keys)))
        stored = _Storage(key, value.numel())
        arguments: tuple[Any, ...] = (stored, 0, tuple(value.shape), value.stride(), False, {})
        return torch._utils._rebuild_tensor_v2, arguments  # the name in every file of torch

    def persistent_id(self, value: Any) -> Any:
        """Of a storage: its number and length."""
        if not isinstance(value, _Storage):
            return None
        return ("storage", torch.HalfStorage, value.key, "cpu", value.numel)


class _Storage:
    """Stands for the numbers of a tensor."""

    def __init__(self, key: str, numel: int) -> None:
        self.key, self.numel = key, numel


class _Zip:
    """A zip archive without compression whose members may be holes (64-bit, as torch's)."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._entries, self._count = b"", 0

    def __enter__(self) -> _Zip:
        return self

    def __exit__(self, *_: object) -> None:
        start = self._file.tell()
        self._file.write(self._entries)
        end, size = self._file.tell(), len(self._entries)
        count = self._count
        self._file.write(
            struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
        )
        self._file.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        self._file.write(
            struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        )
        self._file.close()

    def add(self, name: str, content: bytes) -> None:
        """A member."""
        self._head(name, len(content), zlib.crc32(content))
        self._file.write(content)

    def add_hole(self, name: str, size: int) -> None:
        """A member of so many zeros."""
        self._head(name, size, _crc_of_zeros(size))
        self._file.truncate(self._file.seek(size, io.SEEK_CUR))

    def _head(self, name: str, size: int, crc: int) -> None:
        text, place = name.encode(), self._file.tell()
        common = struct.pack("<5H3I", 45, 0, 0, 0, 0x21, crc, size, size)
        padding = -(place + 30 + len(text) + 4) % 64  # tensors are aligned
        extra = struct.pack("<2H", 0x4246, padding) + bytes(padding)
        self._file.write(b"PK\3\4" + common + struct.pack("<2H", len(text), len(extra)))
        self._file.write(text + extra)
        wide = struct.pack("<2HQ", 1, 8, place)
        self._entries += b"PK\1\2" + struct.pack("<H", 45) + common
        self._entries += struct.pack("<5H2I", len(text), len(wide), 0, 0, 0, 0, 0xFFFFFFFF)
        self._entries += text + wide
        self._count += 1


@cache
def _crc_of_zeros(size: int) -> int:
    crc, piece = 0, bytes(1 << 20)
    for start in range(0, size, len(piece)):
        crc = zlib.crc32(piece[: size - start], crc)
    return crc


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    options = parser.parse_args()
    make_folder(options.folder, options.layers)
