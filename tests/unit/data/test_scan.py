"""A scan finds every fault, in order, and counts the classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from passl.data.datasets.digits import DigitsDataset
from passl.data.datasets.imagenet import ImageNetDataset
from passl.data.scan import scan_dataset


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
