"""Fashion-MNIST from its four idx files: 70,000 real pictures of clothes, fit for a CPU."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from passl.data.dataset import Dataset, MissingDataError
from passl.errors import DataError
from passl.registry import DATASETS, Component

_PREFIX = {"train": "train", "val": "t10k"}
_UNSIGNED_BYTE = 0x08  # type code of the idx format
#: Source: the paper, table 2, and the page of the data set.
_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
    "Ankle boot",
)  # fmt: skip
#: SHA-256 of the published labels, a byte each: other data in such files has other names.
_LABELS_SHA256 = {
    "train": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "val": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}


@DATASETS.register()
class FashionMNISTDataset(Dataset):
    """Fashion-MNIST: 60,000 training and 10,000 test images, 28 x 28 pixels, 10 classes.

    Images are uint8 [28, 28, in_chans]. Any data set in the same four files works (MNIST does),
    without names of its classes.

    Args:
        root: folder of ``train-images-idx3-ubyte.gz``, ``train-labels-idx1-ubyte.gz`` and the two
            ``t10k-...`` files, compressed or not; the default is where Debian puts them.
        split: ``train``, or ``val`` for the 10,000 test images.
        in_chans: 1, or 3 for the grey value repeated.
        transform_ops: transforms applied to each image, in this order.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747; the idx format is
    described on Y. LeCun's MNIST page.
    """

    def __init__(
        self,
        *,
        root: str = "/usr/share/datasets/fashion-mnist",
        split: Literal["train", "val"] = "train",
        in_chans: Literal[1, 3] = 3,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
    ) -> None:
        super().__init__(transform_ops)
        folder = Path(root)
        image_file = _find(folder, f"{_PREFIX[split]}-images-idx3-ubyte")
        label_file = _find(folder, f"{_PREFIX[split]}-labels-idx1-ubyte")
        self._images = _read_idx(image_file, dimensions=3)
        labels = _read_idx(label_file, dimensions=1)
        if len(labels) != len(self._images):
            raise DataError(
                f"{image_file} holds {len(self._images)} images but {label_file} {len(labels)} "
                "labels; the two files do not belong together"
            )
        if not len(labels):
            raise DataError(f"{image_file}: there are no images in it")
        self.labels = self._classes = labels.astype(np.int32)
        self.class_num = 10
        is_published = hashlib.sha256(labels.tobytes()).hexdigest() == _LABELS_SHA256[split]
        self.classes = list(_NAMES) if is_published else None
        if self.labels.max() >= self.class_num:
            raise DataError(f"{label_file}: label {self.labels.max()} is not one of the 10 classes")
        self._in_chans, self._image_file = in_chans, image_file

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> tuple[np.ndarray, int]:
        """Image uint8 [28, 28, in_chans] and its class."""
        grey = self._images[index][:, :, None]
        return np.repeat(grey, self._in_chans, axis=2), int(self._classes[index])

    def path_of(self, index: int) -> str:
        """File and position of the image."""
        return f"{self._image_file} image {index}"


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise MissingDataError(
        f"FashionMNISTDataset: {folder / name}.gz does not exist. Put the four idx files into a "
        "folder and name it with dataset.root, or install them: "
        "apt-get install dataset-fashion-mnist"
    )


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """A uint8 array from an idx file: zero, zero, type, rank, sizes as big-endian int32, data."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read, truncated or broken ({error})") from error
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise DataError(f"{path}: is not an idx file of unsigned bytes in {dimensions} dimensions")
    shape = tuple(np.frombuffer(data, dtype=">u4", count=dimensions, offset=4).tolist())
    if len(data) - header != int(np.prod(shape)):
        raise DataError(
            f"{path}: truncated or broken: {len(data) - header} bytes of data where "
            f"{' x '.join(map(str, shape))} are announced"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
