"""Images per second of the ImageNet training chain, ours against what others do, in one table.

    python benchmarks/data_loading.py [--rounds 7] [--images 256] [--save benchmarks/README.md]

The JPEG files (500 x 375, quality 90) are cut from scikit-learn's two photographs. The chain is
decode, random resized crop to 224 (bicubic), flip, into a batch: "float32" normalised with the
channels first, "uint8" as it is, to be normalised on the device. All draw the same boxes.

- "Pillow as timm uses it": Pillow throughout, uint8 with the channels first, and one normalisation
  of the whole batch where the row says float32.
- "PASSL's": OpenCV decodes, Pillow resizes, numpy normalises each image, through
  ``paddle.io.DataLoader`` (left out with ``--without-paddle``).
- "without fast-jpeg": ours where libjpeg-turbo 3 is not installed; the pixels are the same.

Rows are interleaved and medians printed. "CPU" counts the processor time of this process and of
those that ended, all threads together, which other programs on the machine change by a tenth or
two; "wall" is what passed, and on a busy machine it is as noisy as the machine. Our worker
processes outlive the rounds and have no CPU figure.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from marks import put_table
from measured import measured
from PIL import Image

from passl.data import turbojpeg
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

OURS_IN_PROCESSES = "2 worker processes"
EMPTY = "nothing but the loader, uint8, 2 threads"

Run = Callable[[int], None]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--without-paddle", action="store_true")
    parser.add_argument("--save", metavar="FILE", help="put the tables between the marks of FILE")
    options = parser.parse_args()
    keep_image_blocks()  # as the commands do; it helps all rows
    load = os.getloadavg()[0]
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
                started, used = time.perf_counter(), processor_time()
                run(number)
                if number:  # the first round warms up
                    wall[name].append(time.perf_counter() - started)
                    cpu[name].append(processor_time() - used)
    text = (
        f"{measured('numpy', 'pillow')}, fast-jpeg {'' if turbojpeg.is_available() else 'not '}"
        f"installed; load {load:.1f} before, {os.getloadavg()[0]:.1f} after; {options.images} JPEG "
        f"files of {size / 1024:.0f} KB on average; medians of {options.rounds} interleaved "
        f"rounds.\n\n{table(rows, cpu, wall, options.images)}\n\n"
        f"{goals(cpu, wall, options.images)}"
    )
    print(text)
    if options.save:
        put_table(Path(options.save), "data_loading", text)


def processor_time() -> float:
    """Seconds of the processor that this process and those that it waited for have used."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def table(
    rows: dict[str, Run], cpu: dict[str, list[float]], wall: dict[str, list[float]], images: int
) -> str:
    """Rates and their ratios to the first row."""
    base = images / statistics.median(cpu[next(iter(rows))])
    lines = [
        "| | images a CPU second | ratio | images/s, wall | slowest to fastest |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in rows:
        rate = images / statistics.median(cpu[name])
        by_cpu = "| |" if name.endswith(OURS_IN_PROCESSES) else f"{rate:.0f} | {rate / base:.2f} |"
        walls = [images / seconds for seconds in wall[name]]
        lines.append(
            f"| {name} | {by_cpu} {statistics.median(walls):.0f} "
            f"| {min(walls):.0f} to {max(walls):.0f} |"
        )
    return "\n".join(lines)


def goals(cpu: dict[str, list[float]], wall: dict[str, list[float]], images: int) -> str:
    """What was to be reached, and what was."""

    def of(times: dict[str, list[float]], name: str) -> float:
        return statistics.median(times[name])

    timm = of(cpu, "Pillow as timm uses it, float32")
    one, two = "fast, uint8, 1 thread", "fast, uint8, 2 threads"
    loader = of(cpu, EMPTY)
    found = [
        ("exact against timm's, CPU", 1.25, timm / of(cpu, "exact, uint8, 2 threads")),
        ("fast against timm's, CPU", 3.0, timm / of(cpu, two)),
        ("2 threads against 1, fast, wall", 1.8, of(wall, one) / of(wall, two)),
        (
            "2 threads against 1, exact, wall",
            1.8,
            of(wall, "exact, uint8, 1 thread") / of(wall, "exact, uint8, 2 threads"),
        ),
    ]
    passl = "PASSL's through paddle.io.DataLoader, float32, 2 processes"
    if passl in wall:
        ratio = of(wall, passl) / of(wall, two)
        found.append(("fast on 2 cores against PASSL's, wall", 4.0, ratio))
        ratio = of(wall, passl) / of(wall, "exact, uint8, 2 threads")
        found.append(("exact on 2 cores against PASSL's, wall", 4.0, ratio))
    lines = ["| goal | at least | measured |", "|---|---:|---:|"]
    lines += [f"| {name} | {wanted:g} | {value:.2f} |" for name, wanted, value in found]
    return (
        "\n".join(lines)
        + f"\n\nThe loader itself takes {loader * 64e6 / images:.0f} us of CPU a batch of 64, "
        f"the copy of its pixels and a generator a sample included: "
        f"{100 * loader / of(cpu, two):.1f} % of the fast chain (goal: below 5 %)."
    )


def contestants(root: Path, images: int, with_paddle: bool) -> Iterator[tuple[str, Run]]:
    """Names, and functions that make batches of all images; the argument is the epoch."""
    paths = sorted((root / "images").rglob("*.jpg"))
    for kind in ("float32", "uint8"):
        yield f"Pillow as timm uses it, {kind}", pillow(paths, kind == "float32")
        for label, exact in (("exact", True), ("fast", False)):
            yield f"{label}, {kind}, no thread", ours(folder(root), exact, 0, kind == "uint8")
    for label, exact in (("exact", True), ("fast", False)):
        run = ours(folder(root), exact, 0, True)
        yield f"{label}, uint8, no thread, without fast-jpeg", without_turbojpeg(run)
    if with_paddle:
        passl = "PASSL's through paddle.io.DataLoader, float32"
        yield f"{passl}, no process", passls(paths, 0)
        yield f"{passl}, 2 processes", passls(paths, 2)
    for label, exact in (("exact", True), ("fast", False)):
        yield f"{label}, uint8, 1 thread", ours(folder(root), exact, 1, True)
        yield f"{label}, uint8, 2 threads", ours(folder(root), exact, 2, True)
    yield "fast, float32, 2 threads", ours(folder(root), False, 2, False)
    yield f"fast, uint8, {OURS_IN_PROCESSES}", ours(folder(root), False, 2, True, "processes")
    tar = TarImageDataset(path=str(root / "all.tar"), transform_ops=chain())
    yield "fast, uint8, 2 threads, from a tar", ours(tar, False, 2, True)
    shards = ShardDataset(shards=str(root / "shard-{00..03}.tar"), transform_ops=chain())
    yield "fast, uint8, 2 threads, from 4 shards", ours(shards, False, 2, True)
    yield EMPTY, ours(Ready(images), True, 2, True)


def without_turbojpeg(run: Run) -> Run:
    """The same where the extra is not installed."""

    def run_without(number: int) -> None:
        state = turbojpeg._Distrust
        before, state.is_on = state.is_on, True
        try:
            run(number)
        finally:
            state.is_on = before

    return run_without


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
