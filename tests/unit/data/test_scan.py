"""A scan finds every fault, in order, and counts the classes."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from passl.data.dataset import Dataset
from passl.data.datasets.digits import DigitsDataset
from passl.data.datasets.imagenet import ImageNetDataset
from passl.data.datasets.tar_images import TarImageDataset
from passl.data.duplicates import find_duplicates
from passl.data.scan import scan_dataset
from passl.data.scan_state import ScanState, fingerprint
from passl.errors import DataError


@pytest.fixture
def damaged(image_tree: Path) -> ImageNetDataset:
    dataset = ImageNetDataset(
        image_root=str(image_tree / "images"),
        cls_label_path=str(image_tree / "list.txt"),
        class_num=4,
    )
    whole = (image_tree / "images/cat/img 1.jpg").read_bytes()
    (image_tree / "images/cat/img 1.jpg").write_bytes(whole[: len(whole) // 2])
    (image_tree / "images/dog/img 0.jpg").unlink()
    (image_tree / "images/emu/img 2.jpg").write_text("not an image")
    (image_tree / "images/emu/img 3.jpg").unlink()
    return dataset


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_full_scan_finds_missing_and_broken_files(damaged, num_workers):
    seen = []
    report = scan_dataset(damaged, num_workers=num_workers, progress=lambda *p: seen.append(p))
    assert (report.total, report.checked, report.ok) == (12, 12, False)
    assert [fault.index for fault in report.missing] == [4, 11]
    assert [fault.index for fault in report.unreadable] == [1, 10]
    assert report.unreadable[0].path.endswith("cat/img 1.jpg")
    assert report.unreadable[0].reason.startswith("truncated or broken image")
    assert report.class_counts.tolist() == [4, 4, 4, 0]
    assert report.empty_classes == [3]
    assert seen[-1] == (12, 12)
    text = report.describe(limit=1)
    assert "12 of 12 samples checked" in text
    assert "4 classes with 0 to 4 samples" in text
    assert "1 class (3) without a sample" in text
    assert "... and 1 more" in text


def test_a_quick_scan_looks_for_files_only(damaged):
    report = scan_dataset(damaged, full=False)
    assert [fault.index for fault in report.missing] == [4, 11]
    assert report.unreadable == []


def test_data_sets_in_memory_are_scanned_too():
    report = scan_dataset(DigitsDataset(split="val"), num_workers=2)
    assert report.ok
    assert report.checked == report.total == 359
    assert report.class_counts.sum() == 359


class Plain(Dataset):
    """Labels and images as given; ``bad`` ones raise."""

    def __init__(self, labels: list[int], bad: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.labels, self.bad = np.array(labels), bad

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, index: int) -> tuple[np.ndarray, int]:
        if index in self.bad:
            raise KeyError("no such record")
        return np.full((2, 2, 3), index % 5, np.uint8), int(self.labels[index])


def test_labels_out_of_range_are_counted_and_named():
    report = scan_dataset(Plain([0, 1, 5, 1, -1]), class_num=4)
    assert not report.ok
    assert (report.label_range, report.num_out_of_range) == ((-1, 5), 2)
    assert [str(fault) for fault in report.out_of_range] == [
        "sample 2 (Plain[2]): the label 5 is not from 0 to 3",
        "sample 4 (Plain[4]): the label -1 is not from 0 to 3",
    ]
    assert report.empty_classes == [2, 3]
    assert "2 with a label out of range" in report.describe()


def test_a_label_that_no_model_has_a_class_for_costs_no_memory():
    dataset = Plain([0, 1, 999_999_999])
    for class_num, largest in ((None, (1 << 24) - 1), (2, 1)):
        report = scan_dataset(dataset, class_num=class_num)
        assert report.class_counts.tolist() == [1, 1]
        assert report.out_of_range[0].reason == f"the label 999999999 is not from 0 to {largest}"


def test_what_is_no_regular_file_is_not_waited_for(image_tree):
    cat = image_tree / "images/cat"
    for number in range(3):
        (cat / f"img {number}.jpg").unlink()
    os.mkfifo(cat / "img 0.jpg")
    (cat / "img 1.jpg").mkdir()
    with open(cat / "img 2.jpg", "wb") as file:
        file.truncate(1 << 40)  # sparse
    dataset = ImageNetDataset(
        image_root=str(image_tree / "images"),
        cls_label_path=str(image_tree / "list.txt"),
        check_files=False,
    )
    assert [fault.reason for fault in scan_dataset(dataset).unreadable] == [
        "no regular file",
        "it is a folder, not an image file",
        "1.0 TB, too large for an image",
    ]


def test_no_memory_is_said_with_the_sample():
    class Large(Plain):
        def load(self, index: int) -> tuple[np.ndarray, int]:
            raise MemoryError

    with pytest.raises(DataError, match=r"no memory for sample 0 \(Large\[0\]\)"):
        scan_dataset(Large([0]))


def test_a_root_without_any_of_the_files_is_told(image_tree):
    dataset = ImageNetDataset(
        image_root=str(image_tree),  # and not images/
        cls_label_path=str(image_tree / "list.txt"),
        check_files=False,
    )
    report = scan_dataset(dataset)
    assert len(report.missing) == 12
    assert report.warnings == [f"no file is there; paths are relative to {image_tree}"]


def test_an_error_of_a_users_own_data_set_is_a_fault_of_its_sample():
    report = scan_dataset(Plain([0, 1, 1], bad=(1,)))
    assert [fault.index for fault in report.unreadable] == [1]
    assert report.unreadable[0].reason == "KeyError: 'no such record'"


def folder_of(tree: Path, lines: list[str], name: str) -> ImageNetDataset:
    (tree / name).write_text("\n".join(lines) + "\n")
    return ImageNetDataset(image_root=str(tree / "images"), cls_label_path=str(tree / name))


def duplicates_of(**datasets: Dataset):
    parts = {}
    for name, dataset in datasets.items():
        parts[name] = (dataset, scan_dataset(dataset, hashes=True).digests)
    return find_duplicates(parts)


def test_copies_are_found_between_and_within_data_sets(image_tree):
    images = image_tree / "images"
    for copy, original in (
        ("cat/leak.jpg", "dog/img 1.jpg"),  # into evaluation, with the same label there
        ("emu/other label.jpg", "cat/img 0.jpg"),
        ("dog/same label.jpg", "dog/img 2.jpg"),
    ):
        (images / copy).write_bytes((images / original).read_bytes())
    for name in ("cat/empty.jpg", "dog/empty.jpg"):  # equal, but no images
        (images / name).write_bytes(b"")
    train = folder_of(
        image_tree,
        [*(image_tree / "list.txt").read_text().splitlines(), "emu/other label.jpg 2",
         "dog/same label.jpg 1", "cat/empty.jpg 0", "dog/empty.jpg 1"],
        "train.txt",
    )  # fmt: skip
    val = folder_of(image_tree, ["cat/leak.jpg 1"], "val.txt")
    found = duplicates_of(Train=train, Eval=val)
    named = {
        kind: [[(c.section, c.index, c.label) for c in group] for group in getattr(found, kind)]
        for kind in ("between", "conflicting", "same")
    }
    assert named == {
        "between": [[("Train", 5, 1), ("Eval", 0, 1)]],
        "conflicting": [[("Train", 0, 0), ("Train", 12, 2)]],
        "same": [[("Train", 6, 1), ("Train", 13, 1)]],
    }
    text = found.describe()
    assert "1 image in both data sets: evaluation is not on unseen images only" in text
    assert "Train sample 5 (" in text
    assert "dog/img 1.jpg, label 1) = Eval sample 0 (" in text
    assert found.to_dict()["conflicting"][0][1]["path"].endswith("emu/other label.jpg")


def test_arrays_are_compared_where_there_are_no_files():
    found = duplicates_of(Train=Plain([0, 1, 2, 3, 4, 0, 9]), Eval=Plain([0]))
    assert [[c.index for c in group] for group in found.between] == [[0, 5, 0]]
    assert [[c.index for c in group] for group in found.conflicting] == [[1, 6]]
    digits = duplicates_of(Train=DigitsDataset(), Eval=DigitsDataset(split="val"))
    assert (digits.between, digits.conflicting, digits.same) == ([], [], [])


def test_a_set_of_one_label_is_no_other_label(image_tree):
    sets = image_tree / "sets.txt"
    lines = (image_tree / "list.txt").read_text().splitlines()
    sets.write_text("".join(f"{line}\n" for line in [*lines[:6], lines[6] + ",0"]))
    train = ImageNetDataset(
        image_root=str(image_tree / "images"),
        cls_label_path=str(sets),
        multi_label=True,
        class_num=3,
    )
    found = duplicates_of(Train=train, Eval=folder_of(image_tree, lines[5:7], "val.txt"))
    assert [[copy.label for copy in group] for group in found.between] == [[1, 1], [(1, 0), 1]]
    assert len(found.conflicting) == 1


def test_no_data_has_no_duplicates():
    found = find_duplicates({})
    assert "0 images in both data sets" in found.describe()


# -- continuing ----------------------------------------------------------------------------------


def many_files(tree: Path, count: int = 200) -> ImageNetDataset:
    """``count`` entries of a list; the twelve images again and again under links of their own."""
    originals = sorted((tree / "images").rglob("img*.jpg"))
    lines = []
    for number in range(count):
        name = f"cat/{number:04}.jpg"
        (tree / "images" / name).write_bytes(originals[number % 12].read_bytes())
        lines.append(f"{name} {number % 3}")
    return folder_of(tree, lines, "many.txt")


def replace_secretly(path: str) -> None:
    """Other bytes, but the size and times that were there before."""
    status = os.stat(path)
    Path(path).write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def scan_with_state(dataset: Dataset, file: Path):
    state = ScanState(file)
    name = fingerprint(dataset)
    assert name is not None
    section = state.section("Train", name)
    known = section.known_samples
    report = scan_dataset(dataset, hashes=True, state=section, num_workers=2)
    state.flush()
    return known, report


def test_a_scan_continues_from_its_state_and_gives_the_same_report(image_tree):
    dataset, file = many_files(image_tree), image_tree / "state"
    Path(dataset.path_of(3)).write_text("no image")
    Path(dataset.path_of(70)).unlink()
    known, first = scan_with_state(dataset, file)
    assert known == 0
    replace_secretly(dataset.path_of(10))  # would be found if the file were read again
    known, second = scan_with_state(dataset, file)
    assert known == 200
    assert second.to_dict() == first.to_dict()
    np.testing.assert_array_equal(second.digests, first.digests)


def test_a_changed_file_is_read_again(image_tree):
    dataset, file = many_files(image_tree), image_tree / "state"
    scan_with_state(dataset, file)
    Path(dataset.path_of(100)).write_bytes(b"")
    replace_secretly(dataset.path_of(10))
    _, report = scan_with_state(dataset, file)
    assert [fault.index for fault in report.unreadable] == [100]
    _, report = scan_with_state(dataset, file)
    assert [fault.index for fault in report.unreadable] == [100]


def test_a_changed_list_starts_over(image_tree):
    dataset, file = many_files(image_tree), image_tree / "state"
    scan_with_state(dataset, file)
    replace_secretly(dataset.path_of(10))
    lines = (image_tree / "many.txt").read_text().splitlines()
    changed = folder_of(image_tree, [*lines[:-1], lines[-1][:-1] + "0"], "many.txt")
    known, report = scan_with_state(changed, file)
    assert known == 0
    assert [fault.index for fault in report.unreadable] == [10]


@pytest.mark.parametrize("cut", [1, 40, 400])
def test_a_state_cut_short_by_a_kill_is_used_as_far_as_it_goes(image_tree, cut):
    dataset, file = many_files(image_tree), image_tree / "state"
    _, whole = scan_with_state(dataset, file)
    data = file.read_bytes()
    file.write_bytes(data[:-cut])
    known, report = scan_with_state(dataset, file)
    assert known == {1: 200, 40: 192, 400: 128}[cut]  # 1: only the end of the last line
    assert report.to_dict() == whole.to_dict()
    known, _ = scan_with_state(dataset, file)
    assert known == 200


def test_a_state_of_something_else_is_passed_over(image_tree):
    dataset, file = many_files(image_tree), image_tree / "state"
    file.write_bytes(b'\x00\xff\n[1]\n{"section": "Train", "start": 0}\n{"section": 3}\n')
    known, report = scan_with_state(dataset, file)
    assert (known, report.ok) == (0, True)


def test_a_state_that_cannot_be_written_does_not_stop_the_scan(image_tree, caplog):
    dataset = many_files(image_tree)
    _, report = scan_with_state(dataset, image_tree)  # a folder
    assert report.checked == 200
    assert "the scan cannot be continued if it is interrupted" in caplog.text


def archive_of(tree: Path) -> TarImageDataset:
    """200 of the small images in a tar."""
    originals = sorted((tree / "images").rglob("*.jpg"))
    with tarfile.open(tree / "train.tar", "w") as archive:
        for number in range(200):
            original = originals[number % 12]
            archive.add(original, f"{original.parent.name}/{number:04}.jpg")
    return TarImageDataset(path=str(tree / "train.tar"))


def test_the_scan_of_an_archive_continues_too(image_tree):
    dataset, file = archive_of(image_tree), image_tree / "state"
    known, first = scan_with_state(dataset, file)
    assert (known, first.ok) == (0, True)
    start = int(dataset.places[1][10])
    path, status = dataset.archives[0], os.stat(dataset.archives[0])
    with path.open("r+b") as archive:  # seen only if it is read again
        archive.seek(start)
        archive.write(b"x" * 100)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    known, second = scan_with_state(dataset, file)
    assert (known, second.to_dict()) == (200, first.to_dict())
    os.utime(path, ns=(1, 1))
    _, third = scan_with_state(dataset, file)
    assert [fault.index for fault in third.unreadable] == [10]
    state = ScanState(file)
    name = fingerprint(TarImageDataset(path=str(path)))
    assert name is not None
    assert state.section("Train", name).known_samples == 200
