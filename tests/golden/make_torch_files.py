"""Make the ``odd_*`` files of ``torch_files/``: what PyTorch can put into a checkpoint, tiny.

Needs torch, and nothing of passl::

    python tests/golden/make_torch_files.py tests/golden/torch_files

``odd_expected.npz`` holds the tensors of ``odd_zip.pth``, ``odd_legacy.pth`` and
``odd_no_crc.pth`` as ``tensor.float()`` and the like see them: bfloat16 as float32, everything else
as it is.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import os
import pathlib
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch


class CodeToRun:
    """Pickles into a call of a function that only makes a file."""

    def __init__(self, function: object, argument: str) -> None:
        self.function, self.argument = function, argument

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return self.function, (self.argument,)


def odd_tensors() -> dict[str, torch.Tensor]:
    """One of every kind, with values that no other kind could hold."""
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    tensors = {
        "base": base,
        "same_storage": base,
        "row_view": base[2:4],
        "column_view": base[:, 3:5],
        "every_other": base[::2, 1::3],
        "transposed": base.t(),
        "permuted": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        "expanded": torch.tensor([1.5, -2.0]).expand(3, 2),
        "scalar": torch.tensor(3.25),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "buffer": torch.nn.Buffer(torch.randn(2)),
        "bfloat16": torch.tensor([1.0, -2.5, 3.140625, 1e38, float("inf")], dtype=torch.bfloat16),
        "bfloat16_scalar": torch.tensor(0.5, dtype=torch.bfloat16),
        "half": torch.linspace(-1, 1, 5).half(),
        "double": torch.tensor([1 / 3], dtype=torch.float64),
        "int64": torch.tensor([-(2**62), 2**62]),
        "int32": torch.tensor([[-5, 2**31 - 1]], dtype=torch.int32),
        "int16": torch.tensor([-300], dtype=torch.int16),
        "int8": torch.tensor([-128, 127], dtype=torch.int8),
        "uint8": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "complex": torch.tensor([1 + 2j]),
        "module.Gewöhnung": torch.ones(1),
    }
    return tensors


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """The values in C order."""
    tensor = tensor.detach()
    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return np.array(tensor.numpy(), order="C")


def save(name: str, content: object, *, is_legacy: bool = False) -> None:
    """``torch.save`` in one of its two formats."""
    torch.save(content, name, _use_new_zipfile_serialization=not is_legacy)


def training_checkpoint() -> dict[str, object]:
    """What a training script saves: the weights deep inside, bystanders of all kinds around."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    counts = collections.defaultdict(list, train=[1, 2])
    return {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("data"), model="x"),
        "when": datetime.datetime(2020, 1, 2),
        "best": np.float64(0.5),
        "curve": np.arange(3.0),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "counts": counts,
        "rng": torch.zeros(4, dtype=torch.uint8),
        "optimizer": optimizer.state_dict(),
        "state_dict": {"model": collections.OrderedDict(layer.state_dict()), "step": 7},
        "state_dict_ema": {k: v * 2 for k, v in layer.state_dict().items()},
    }


def main(folder: str) -> None:
    """Write everything into ``folder``."""
    os.chdir(folder)
    tensors = odd_tensors()
    np.savez("odd_expected.npz", **{name: as_array(value) for name, value in tensors.items()})
    save("odd_zip.pth", tensors)
    save("odd_legacy.pth", tensors, is_legacy=True)
    torch.serialization.set_crc32_options(False)
    save("odd_no_crc.pth", tensors)
    torch.serialization.set_crc32_options(True)
    with (
        zipfile.ZipFile("odd_zip.pth") as old,
        zipfile.ZipFile("odd_deflated.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    checkpoint = training_checkpoint()
    save("odd_training.pth", checkpoint)
    save("odd_training_legacy.pth", checkpoint, is_legacy=True)
    save("odd_module.pth", torch.nn.Linear(2, 2))
    save("odd_module_legacy.pth", {"model": torch.nn.Linear(2, 2)}, is_legacy=True)
    torch.jit.script(torch.nn.Linear(2, 2)).save("odd_torchscript.pt")
    save("odd_sparse.pth", {"w": torch.eye(3).to_sparse()})
    save("odd_quantized.pth", {"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)})
    save("odd_float8.pth", {"w": torch.ones(2).to(torch.float8_e4m3fn)})
    save("odd_uint16.pth", {"w": torch.tensor([1, 65535], dtype=torch.uint16)})
    save("odd_meta.pth", {"w": torch.empty(2, device="meta")})
    save("odd_conjugated.pth", {"w": torch.tensor([1 + 2j]).conj()})
    evil = CodeToRun(os.mkdir, "ran_by_loading")
    save("odd_evil_legacy.pth", {"w": torch.ones(2), "x": evil}, is_legacy=True)


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).resolve())))
