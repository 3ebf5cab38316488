"""myrtle-vision's layout: paths in a text file, labels in a JSON map."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from passl.cli.data import main
from passl.data.dataset import MissingDataError
from passl.data.datasets.label_map import LabelMapDataset
from passl.errors import DataError


@pytest.fixture
def resisc(tmp_path: Path) -> Path:
    for name in ("airplane", "beach"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "images" / name / f"{name}_{number}.jpg").write_bytes(name.encode())
    assert main(["lists", str(tmp_path), "--style", "myrtle"]) == 0
    return tmp_path


def test_the_lists_of_passl_data_are_read(resisc: Path) -> None:
    dataset = LabelMapDataset(
        dataset_path=str(resisc), image_paths="train_imagepaths.txt", class_num=2
    )
    assert len(dataset) == 28
    for index in range(28):
        data, label = dataset.load(index)
        assert dataset.classes[int(label)].encode() == data


def test_labels_follow_the_map_and_not_the_alphabet(resisc: Path) -> None:
    (resisc / "label_map.json").write_text('{"airplane": 1, "beach": 0}')
    dataset = LabelMapDataset(dataset_path=str(resisc), image_paths="val_imagepaths.txt")
    assert dataset.classes == ["beach", "airplane"]
    assert dataset.load(0) == (b"airplane", 1)


@pytest.mark.parametrize(
    ("label_map", "paths", "message"),
    [
        ({"airplane": 0}, "images/beach/beach_1.jpg", "not among the 1 known ones"),
        ({"airplane": 1}, "images/airplane/airplane_1.jpg", "the numbers 0 to 0"),
        ({"airplane": 0}, "airplane/x.jpg", "wanted images/CLASS/FILE"),
        ({"airplane": 0}, "", "the list is empty"),
        ([1], "images/airplane/x.jpg", "is no JSON object"),
        ({"airplane": 0}, "images/airplane/nowhere.jpg", "does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(
    resisc: Path, label_map: object, paths: str, message: str
) -> None:
    (resisc / "label_map.json").write_text(json.dumps(label_map))
    (resisc / "list.txt").write_text(paths)
    with pytest.raises(DataError, match=message):
        LabelMapDataset(dataset_path=str(resisc), image_paths="list.txt")


def test_missing_files_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="--style myrtle"):
        LabelMapDataset(dataset_path=str(tmp_path), image_paths="train_imagepaths.txt")
