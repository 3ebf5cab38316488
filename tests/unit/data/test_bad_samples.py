"""A sample that cannot be used: the same substitute however the run goes, one line in a file."""

from __future__ import annotations

import errno
import gc
import logging
import multiprocessing
import re
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import pytest

from passl.data.bad_samples import BadSampleLog, limit_of
from passl.data.dataset import Dataset
from passl.data.datasets.imagenet import ImageNetDataset
from passl.data.faults import (
    MAX_SUBSTITUTES,
    BadSample,
    FetchedSample,
    SampleFetcher,
    is_out_of_memory,
    substitutes,
)
from passl.data.loader import Loader
from passl.data.samplers import DistributedBatchSampler
from passl.data.transforms.normalize import NormalizeImage, ToCHWImage
from passl.data.transforms.random_crop import RandCropImage
from passl.errors import DataError


class Numbered(Dataset):
    """Image ``i`` is filled with ``i``; ``bad`` ones raise."""

    def __init__(self, count: int, bad: Sequence[int] = (), error: Optional[Exception] = None):
        super().__init__([NormalizeImage(order="hwc"), ToCHWImage()])
        self.count, self.bad, self.error = count, set(bad), error or ValueError("rotten")

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> tuple[np.ndarray, int]:
        if index in self.bad:
            raise self.error
        return np.full((4, 5, 3), index % 256, np.uint8), index % 7

    def path_of(self, index: int) -> str:
        return f"/data/{index}.jpg"


def make(dataset: Dataset, **rest: Any) -> Loader:
    sampler = DistributedBatchSampler(
        num_samples=len(dataset), batch_size=rest.pop("batch_size", 5), seed=1, shuffle=True
    )
    return Loader(dataset, sampler, seed=1, bad_sample="skip", **rest)


# -- which sample takes the place ----------------------------------------------------------------


def test_the_substitute_is_a_function_of_seed_epoch_and_index():
    drawn = substitutes(1000, seed=3, epoch=2, index=500)
    assert drawn == substitutes(1000, seed=3, epoch=2, index=500)
    assert len(drawn) == len(set(drawn)) == MAX_SUBSTITUTES
    others = [
        substitutes(1000, seed, epoch, index)
        for seed, epoch, index in ((4, 2, 500), (3, 1, 500), (3, 2, 501))
    ]
    assert drawn not in others


def test_it_is_never_the_sample_itself_nor_its_neighbour():
    for index in range(12):
        drawn = substitutes(12, seed=0, epoch=0, index=index)
        assert not {index - 1, index, index + 1} & set(drawn)
        assert len(drawn) == min(MAX_SUBSTITUTES, 12 - 3 + (index in (0, 11)))


def test_substitutes_come_from_the_whole_data_set():
    first = [substitutes(1000, seed=0, epoch=epoch, index=500)[0] for epoch in range(200)]
    assert np.histogram(first, bins=4, range=(0, 1000))[0].min() > 25


@pytest.mark.parametrize(("count", "left"), [(1, []), (2, [1]), (3, [1, 2])])
def test_a_tiny_data_set_gives_what_it_has(count, left):
    assert sorted(substitutes(count, seed=0, epoch=0, index=0)) == left


def test_a_bad_substitute_is_followed_by_the_next_one():
    chain = substitutes(100, seed=1, epoch=0, index=40)
    fetched = SampleFetcher(Numbered(100, [40, *chain[:3]]), 1, skip=True).fetch(0, 40)
    assert fetched.index == chain[3]
    assert [bad.index for bad in fetched.bad] == [40, *chain[:3]]
    assert fetched.image[0, 0, 0] == pytest.approx(NormalizeImage(order="hwc")(
        np.full((4, 5, 3), chain[3], np.uint8), np.random.default_rng(0)
    )[0, 0, 0])  # fmt: skip
    assert fetched.label == chain[3] % 7


def test_a_skipped_sample_leaves_nothing_for_the_garbage_collector():
    class Rotten(Exception):
        pass

    raised: list[weakref.ref[Rotten]] = []

    class Rotting(Numbered):
        def load(self, index: int) -> tuple[np.ndarray, int]:
            if index < 40:
                error = Rotten()
                raised.append(weakref.ref(error))
                try:
                    raise error
                finally:
                    del error
            return super().load(index)

    fetcher = SampleFetcher(Rotting(50), 1, skip=True)
    was_on = gc.isenabled()
    gc.disable()
    try:
        met = [len(fetcher.fetch(epoch, 3).bad) for epoch in range(3)]
        assert [error() for error in raised] == [None] * sum(met)
    finally:
        if was_on:
            gc.enable()
    assert max(met) > 1  # a substitute was bad as well


def test_the_chain_ends_with_a_sentence():
    chain = substitutes(100, seed=1, epoch=0, index=40)
    with pytest.raises(DataError) as error:
        SampleFetcher(Numbered(100, [40, *chain]), 1, skip=True).fetch(0, 40)
    assert str(error.value).startswith(
        "sample 40 (/data/40.jpg) cannot be used: ValueError: rotten; nor can any of the 10 drawn "
        f"in its place, the last being sample {chain[-1]} (/data/{chain[-1]}.jpg): ValueError: "
        "rotten. That is no longer chance"
    )
    with pytest.raises(DataError, match="has no other sample to take in its place"):
        SampleFetcher(Numbered(1, [0]), 1, skip=True).fetch(0, 0)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.ENOMEM, "no memory"), OSError(errno.EMFILE, "too many files"),
     OSError(errno.ESTALE, "stale handle"), OSError(errno.ETIMEDOUT, "timed out")],
    ids=repr,
)  # fmt: skip
def test_a_fault_of_the_machine_is_never_skipped(error):
    with pytest.raises(DataError, match="sample 4 "):
        SampleFetcher(Numbered(50, [4], error), 1, skip=True).fetch(0, 4)


def test_opencv_without_memory_is_out_of_memory():
    import cv2

    error = cv2.error("OpenCV: Failed to allocate 9 bytes in function 'OutOfMemoryError'")
    error.code = -4
    assert is_out_of_memory(error)
    assert not is_out_of_memory(cv2.error("something else"))


# -- batches with substitutes --------------------------------------------------------------------


def test_batches_are_the_same_with_any_number_of_workers_and_after_a_restart():
    bad = [3, 11, 12, 30]
    runs = []
    for num_workers in (0, 1, 3):
        loader = make(Numbered(40, bad), num_workers=num_workers, max_bad_samples=4)
        runs.append([b for epoch in (0, 1) for b in loader.epoch(epoch)])
    restarted = make(Numbered(40, bad), num_workers=2, max_bad_samples=4)
    runs.append([*runs[0][:3], *restarted.epoch(0, 3), *restarted.epoch(1)])
    for other in runs[1:]:
        for a, b in zip(runs[0], other):
            np.testing.assert_array_equal(a.images, b.images)
            np.testing.assert_array_equal(a.labels, b.labels)
            np.testing.assert_array_equal(a.indices, b.indices)
    seen = np.concatenate([b.indices for b in runs[0]])
    assert not set(bad) & set(seen.tolist())
    assert len(seen) == 80
    for batch in runs[0]:  # image, label and index are of the same sample
        assert batch.images[:, 0, 0, 0].tolist() == batch.indices.tolist()
        assert batch.labels.tolist() == (batch.indices % 7).tolist()


def test_ranks_together_take_the_substitutes_of_one_process():
    alone = list(make(Numbered(40, [3, 11])).epoch(1))
    ranks = [list(make(Numbered(40, [3, 11]), rank=rank, world_size=2).epoch(1)) for rank in (0, 1)]
    for number, whole in enumerate(alone):
        joined = np.concatenate([batches[number].indices for batches in ranks])
        np.testing.assert_array_equal(joined, whole.indices)


@pytest.fixture
def broken_tree(image_tree: Path, photo: np.ndarray, encode: Callable[..., bytes]) -> Path:
    """The image tree with every kind of damage, and two files that only look damaged."""
    images = image_tree / "images"
    whole = (images / "cat/img 1.jpg").read_bytes()
    (images / "cat/img 1.jpg").write_bytes(whole[: len(whole) // 2])
    (images / "dog/img 0.jpg").write_text("<html>404 Not Found</html>")
    (images / "dog/img 2.jpg").write_bytes(b"")
    part = np.ascontiguousarray(photo[:40, :48])
    (images / "emu/img 2.jpg").write_bytes(encode(part, "PNG"))
    alpha = np.dstack([part, np.full(part.shape[:2], 128, np.uint8)])
    (images / "emu/img 3.jpg").write_bytes(encode(alpha, "PNG"))
    return image_tree


def photos(tree: Path) -> ImageNetDataset:
    ops = [RandCropImage(size=16), NormalizeImage(order=""), ToCHWImage()]
    return ImageNetDataset(
        image_root=str(tree / "images"), cls_label_path=str(tree / "list.txt"), transform_ops=ops
    )


def test_broken_files_are_skipped_and_odd_ones_are_used(broken_tree, caplog):
    file = broken_tree / "bad_samples.txt"
    with caplog.at_level(logging.WARNING, logger="passl"):
        loader = make(photos(broken_tree), bad_samples_file=file, num_workers=2)
        seen = [b for epoch in range(3) for b in loader.epoch(epoch)]
    used = set(np.concatenate([b.indices for b in seen]).tolist())
    assert used == set(range(12)) - {1, 4, 6}  # a PNG named .jpg and one with alpha are images
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    assert sorted(int(row[0]) for row in rows) == [1, 4, 6]  # once each, in three epochs
    reasons = {int(row[0]): row[2] for row in rows}
    assert reasons[1].startswith("truncated or broken image")
    assert reasons[4] == "not an image that Pillow knows (26 bytes)"
    assert reasons[6] == "the file is empty"
    assert {row[1].rpartition("images/")[2] for row in rows} == {
        "cat/img 1.jpg", "dog/img 0.jpg", "dog/img 2.jpg"
    }  # fmt: skip
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 3
    assert any("sample 6 (" in line and "takes its place (bad sample" in line for line in warnings)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_error_stays_the_default(broken_tree, num_workers):
    dataset = photos(broken_tree)
    sampler = DistributedBatchSampler(num_samples=12, batch_size=12, seed=0)
    with pytest.raises(DataError, match=r"sample 1 \(.*img 1.jpg\) cannot be used: truncated"):
        list(Loader(dataset, sampler, num_workers=num_workers).epoch(0))
    assert not (broken_tree / "bad_samples.txt").exists()


# -- the list and the limit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "num_samples", "limit"),
    [(None, 50, 10), (None, 1_281_167, 1281), (0.01, 500, 5), (3.0, 500, 3), (0.0, 500, 0),
     (1.0, 500, 1), (0.29, 100, 29)],
)  # fmt: skip
def test_the_limit_is_a_count_or_a_fraction(given, num_samples, limit):
    assert limit_of(given, num_samples) == limit


def test_too_many_bad_samples_stop_the_run(tmp_path):
    file = tmp_path / "bad_samples.txt"
    loader = make(
        Numbered(60, range(0, 60, 9)), max_bad_samples=5, bad_samples_file=file, num_workers=2
    )
    with pytest.raises(DataError) as error:
        list(loader.epoch(0))
    assert re.match(  # two workers may each have met one when the sixth is told of
        r"[67] of 60 samples cannot be used, more than the 5 that loader.max_bad_samples allows",
        str(error.value),
    )
    assert "ValueError: rotten" in str(error.value)
    assert str(file) in str(error.value)
    again = make(Numbered(60, range(0, 60, 9)), max_bad_samples=5, bad_samples_file=file)
    with pytest.raises(DataError, match="of 60 samples cannot be used"):
        list(again.epoch(0))  # a restart does not start counting anew


def fetched(index: int, path: Optional[str] = None) -> FetchedSample:
    bad = BadSample(index, path or f"/data/{index}.jpg", "rotten\tand\nwet")
    return FetchedSample(np.zeros(1), 0, 99, (bad,))


def log_of(file: Optional[Path], limit: int = 1000) -> BadSampleLog:
    return BadSampleLog(file, limit, 1000, lambda index: f"/data/{index}.jpg")


def record_range(file: Path, start: int, stop: int) -> None:
    log = log_of(file)
    for index in range(start, stop):
        log.record(fetched(index))


def test_processes_write_one_list(tmp_path):
    file = tmp_path / "bad_samples.txt"
    ranges = [(0, 150), (100, 250), (50, 200)]
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=record_range, args=(file, *part)) for part in ranges]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    assert sorted(int(row[0]) for row in rows) == list(range(250))
    assert {row[2] for row in rows} == {"rotten\\tand\\nwet"}


def test_a_line_cut_short_by_a_kill_spoils_no_other(tmp_path):
    file = tmp_path / "bad_samples.txt"
    file.write_text("3\t/data/3.jpg\trotten\n4\t/dat")
    record_range(file, 3, 6)
    assert [line.split("\t")[0] for line in file.read_text().splitlines()] == ["3", "4", "4", "5"]
    assert file.read_text().splitlines()[2] == "4\t/data/4.jpg\trotten\\tand\\nwet"


def test_entries_of_other_data_do_not_count(tmp_path):
    file = tmp_path / "bad_samples.txt"
    file.write_text("1\t/elsewhere/1.jpg\tx\n2\t/data/2.jpg\tx\n70000\t/data/70000.jpg\tx\nnoise\n")
    log_of(file, limit=2).record(fetched(3))
    with pytest.raises(DataError, match="3 of 1000 samples"):
        log_of(file, limit=2).record(fetched(4))


def test_a_list_that_cannot_be_written_costs_a_warning_not_the_run(tmp_path, caplog):
    log = log_of(tmp_path, limit=2)  # a folder
    with caplog.at_level(logging.WARNING, logger="passl"):
        for index in (1, 1, 2):
            log.record(fetched(index))
    assert sum("cannot be written" in record.getMessage() for record in caplog.records) == 1
    with pytest.raises(DataError, match="3 of 1000"):
        log.record(fetched(3))
