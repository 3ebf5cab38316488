"""Images per second of the ImageNet training chain, ours against what others do, in one table.

    python benchmarks/data_loading.py [--rounds 7] [--images 128]

The JPEG files (500 x 375, quality 90) are cut from scikit-learn's two photographs. The chain is
decode, random resized crop to 224 (bicubic), flip, into a batch: "float32" normalised with the
channels first, "uint8" as it is, to be normalised on the device. All draw the same boxes.

- "Pillow as timm uses it": Pillow throughout, uint8 with the channels first, and one normalisation
  of the whole batch where the row says float32.
- "PASSL's": OpenCV decodes, Pillow resizes, numpy normalises each image, through
  ``paddle.io.DataLoader`` (left out with ``--without-paddle``).

Rows are interleaved and medians printed. "CPU" counts the processor time of this process, all
threads together, which other programs on the machine hardly change; "wall" is what passed, and on
a busy machine it is as noisy as the machine. Worker processes have no CPU figure.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from passl.data.dataset import Dataset
from passl.data.datasets.imagenet import ImageNetDataset
from passl.data.datasets.shards import ShardDataset
from passl.data.datasets.tar_images import TarImageDataset
from passl.data.fast_decode import with_fast_decoding
from passl.data.images import opencv
from passl.data.loader import Loader
from passl.data.samplers import DistributedBatchSampler
from passl.data.transforms.random_crop import RandCropImage
from passl.registry import TRANSFORMS
from passl.runtime import keep_image_blocks

SIDE, MEAN, STD = 224, 0.5, 0.5
CROP = RandCropImage(size=SIDE, interpolation="bicubic")

Run = Callable[[int], None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--without-paddle", action="store_true")
    options = parser.parse_args()
    keep_image_blocks()  # as the commands do; it helps all rows
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = write_photos(root, options.images)
        files = [path.read_bytes() for path in sorted((root / "images").rglob("*.jpg"))]
        for interpolation in ("bicubic", "bilinear"):
            print("fast against exact, 500 x 375,", deviation(files, interpolation))
            print("fast against exact, 2000 x 1334,", deviation(enlarged() * 16, interpolation))
        rows = dict(contestants(root, options.images, not options.without_paddle))
        wall: dict[str, list[float]] = {name: [] for name in rows}
        cpu: dict[str, list[float]] = {name: [] for name in rows}
        for number in range(options.rounds + 1):
            for name, run in rows.items():
                started, used = time.perf_counter(), time.process_time()
                run(number)
                if number:  # the first round warms up
                    wall[name].append(time.perf_counter() - started)
                    cpu[name].append(time.process_time() - used)
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {options.images} JPEG files of "
        f"{size / 1024:.0f} KB on average; medians of {options.rounds} interleaved rounds"
    )
    report(rows, cpu, wall, options.images)


def report(
    rows: dict[str, Run], cpu: dict[str, list[float]], wall: dict[str, list[float]], images: int
) -> None:
    """The table, and what is derived from it."""
    base = images / statistics.median(cpu[next(name for name in rows if "float32" in name)])
    print(f"{'':58}{'images/CPU s':>14}{'ratio':>7}{'images/s wall':>15}")
    for name in rows:
        rate = images / statistics.median(cpu[name])
        by_cpu = f"{rate:14.0f}{rate / base:7.2f}"
        if "processes" in name or "DataLoader, 2" in name:
            by_cpu = f"{'-':>14}{'-':>7}"
        print(f"{name:58}{by_cpu}{images / statistics.median(wall[name]):15.0f}")
    empty = next(name for name in rows if name.startswith("nothing"))
    each, decode = (statistics.median(cpu[n]) for n in (empty, "ours fast, uint8, 2 threads"))
    print(
        f"the loader itself takes {each * 1e6 / (images // 64):.0f} us of CPU a batch of 64 "
        f"(with the copy of its pixels), {100 * each / decode:.1f} % of the fast chain"
    )


def contestants(root: Path, images: int, with_paddle: bool) -> Iterator[tuple[str, Run]]:
    """Names, and functions that make batches of all images; the argument is the epoch."""
    paths = sorted((root / "images").rglob("*.jpg"))
    for kind in ("float32", "uint8"):
        yield f"Pillow as timm uses it, {kind}, 1 core", pillow(paths, kind == "float32")
        for label, exact in (("exact", True), ("fast", False)):
            yield f"ours {label}, {kind}, 1 core", ours(folder(root), exact, 0, kind == "uint8")
    if with_paddle:
        yield "PASSL's, float32, DataLoader, 1 core", passls(paths, 0)
        yield "PASSL's, float32, DataLoader, 2 processes", passls(paths, 2)
    for label, exact in (("exact", True), ("fast", False)):
        for threads in (1, 2):
            name = f"ours {label}, uint8, {threads} threads"
            yield name, ours(folder(root), exact, threads, True)
    yield "ours fast, float32, 2 threads", ours(folder(root), False, 2, False)
    yield "ours fast, uint8, 2 processes", ours(folder(root), False, 2, True, "processes")
    tar = TarImageDataset(path=str(root / "all.tar"), transform_ops=chain())
    yield "ours fast, uint8, 2 threads, from a tar", ours(tar, False, 2, True)
    shards = ShardDataset(shards=str(root / "shard-{00..03}.tar"), transform_ops=chain())
    yield "ours fast, uint8, 2 threads, from 4 shards", ours(shards, False, 2, True)
    yield "nothing but the loader, uint8, 2 threads", ours(Ready(images), True, 2, True)


def deviation(files: list[bytes], interpolation: str) -> str:
    """How far the fast chain is from the exact one, in grey levels of 255."""
    exact = (
        TRANSFORMS.build({"name": "DecodeImage"}),
        TRANSFORMS.build({"name": "RandCropImage", "size": SIDE, "interpolation": interpolation}),
    )
    fast = with_fast_decoding(exact)[0]
    errors = []
    for seed, data in enumerate(files * 2):
        expected = exact[1](exact[0](data, None), np.random.default_rng(seed)).astype(int)
        errors.append(np.abs(fast(data, np.random.default_rng(seed)) - expected))
    means = [float(error.mean()) for error in errors]
    far = statistics.mean(float((error > 8).mean()) for error in errors)
    return (
        f"{interpolation}: mean {statistics.mean(means):.2f}, worst image {max(means):.2f}, "
        f"{100 * far:.1f} % of the values off by more than 8"
    )


def enlarged() -> list[bytes]:
    """The two photographs at 2000 x 1334, as cameras make them: decoded at a fraction."""
    from sklearn.datasets import load_sample_images

    files = []
    for image in load_sample_images().images:
        buffer = io.BytesIO()
        large = Image.fromarray(image).resize((2000, 1334), Image.Resampling.BICUBIC)
        large.save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def chain() -> list[Any]:
    """The recipe's transforms."""
    return [
        TRANSFORMS.build(op)
        for op in (
            {"name": "DecodeImage"},
            {"name": "RandCropImage", "size": SIDE, "interpolation": "bicubic"},
            {"name": "RandFlipImage"},
            {"name": "NormalizeImage", "mean": [MEAN] * 3, "std": [STD] * 3, "order": ""},
            {"name": "ToCHWImage"},
        )
    ]


class Ready(Dataset):
    """Images that need no work: what remains is the loader."""

    def __init__(self, count: int) -> None:
        super().__init__(chain()[3:])
        self._count, self._image = count, np.zeros((SIDE, SIDE, 3), np.uint8)

    def __len__(self) -> int:
        return self._count

    def load(self, index: int) -> tuple[np.ndarray, int]:
        """The same image every time."""
        return self._image, index % 2


def folder(root: Path) -> Dataset:
    """The files as they lie there."""
    return ImageNetDataset(
        image_root=str(root / "images"),
        cls_label_path=str(root / "list.txt"),
        transform_ops=chain(),
    )


def ours(
    dataset: Dataset, exact: bool, num_workers: int, on_device: bool, workers: Optional[str] = None
) -> Run:
    """The loader with PASSL's chain."""
    sampler = DistributedBatchSampler(num_samples=len(dataset), batch_size=64, seed=0, shuffle=True)
    loader = Loader(
        dataset,
        sampler,
        num_workers=num_workers,
        workers=workers,
        exact=exact,
        normalize_on_device=on_device,
    )

    def run(number: int) -> None:
        for _ in loader.epoch(number):
            pass

    return run


def pillow(paths: list[Path], normalise: bool) -> Run:
    """Pillow and numpy alone, in batches of 64."""

    def run(number: int) -> None:
        rng = np.random.default_rng(number)
        for start in range(0, len(paths), 64):
            batch = np.stack([pillow_sample(path, rng) for path in paths[start : start + 64]])
            if normalise:
                (batch.astype(np.float32) - np.float32(255 * MEAN)) / np.float32(255 * STD)

    return run


def pillow_sample(path: Path, rng: np.random.Generator) -> np.ndarray:
    """One image: uint8 [3, 224, 224]."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    top, left, height, width = CROP.draw(image.height, image.width, rng)
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(image).transpose(2, 0, 1)


def passls(paths: list[Path], num_workers: int) -> Run:
    """OpenCV, Pillow and numpy, through Paddle's own loader."""
    import paddle

    cv2 = opencv()

    class Files(paddle.io.Dataset):
        epoch = 0

        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
            rng = np.random.default_rng([self.epoch, index])
            data = np.frombuffer(paths[index].read_bytes(), np.uint8)
            image = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
            top, left, height, width = CROP.draw(image.shape[0], image.shape[1], rng)
            part = np.ascontiguousarray(image[top : top + height, left : left + width])
            resized = Image.fromarray(part).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            image = np.asarray(resized)
            if rng.random() < 0.5:
                image = cv2.flip(image, 1)
            scaled = image.astype("float32") * np.float32(1 / 255)
            mean, std = (np.full((1, 1, 3), value, "float32") for value in (MEAN, STD))
            return ((scaled - mean) / std).transpose(2, 0, 1), index % 2

    files = Files()

    def run(number: int) -> None:
        files.epoch = number
        # Anew each epoch, as its recipes have it: persistent_workers is off there.
        for _ in paddle.io.DataLoader(
            files, batch_size=64, shuffle=True, num_workers=num_workers, places=paddle.CPUPlace()
        ):
            pass

    return run


def write_photos(root: Path, images: int) -> float:
    """Different parts of two photographs as files, tar and shards; returns bytes of one."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(image) for image in load_sample_images().images]
    rng, lines, total = np.random.default_rng(0), [], 0
    with contextlib.ExitStack() as opened:
        whole, *shards = (
            opened.enter_context(tarfile.open(root / f"{name}.tar", "w"))
            for name in ("all", *(f"shard-{number:02}" for number in range(4)))
        )
        for number in range(images):
            photo = photos[number % len(photos)]
            width = int(rng.integers(480, 569))
            height = width * 3 // 4
            left = int(rng.integers(0, photo.width - width + 1))
            top = int(rng.integers(0, photo.height - height + 1))
            part = photo.crop((left, top, left + width, top + height)).resize((500, 375))
            buffer = io.BytesIO()
            part.save(buffer, "JPEG", quality=90)
            data, name = buffer.getvalue(), f"{number % 2}/{number:04d}"
            total += len(data)
            (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "images" / f"{name}.jpg").write_bytes(data)
            lines.append(f"{name}.jpg {number % 2}\n")
            add(whole, f"{name}.jpg", data)
            add(shards[number % 4], f"{number:04d}.jpg", data)
            add(shards[number % 4], f"{number:04d}.cls", str(number % 2).encode())
    (root / "list.txt").write_text("".join(lines))
    return total / images


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Put a file into an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main()
