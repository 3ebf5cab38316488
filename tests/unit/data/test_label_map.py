"""myrtle-vision's layout: paths in a text file, labels in a JSON map."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from passl.cli.data import main
from passl.data.class_names import read_class_names
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


def test_any_name_of_a_class_or_an_image_is_read_back(tmp_path: Path) -> None:
    contents = {}
    folders = (b"plain", b"two words", b"line\nend", b"no utf\xff8", b"\\slash", b"\xc2\x85next")
    for folder in folders:
        where = os.path.join(os.fsencode(tmp_path), b"images", folder)
        os.makedirs(where)
        for number in range(10):
            name = folder + b" %d \r.jpg" % number
            contents[name] = b"%b %d" % (folder, number)
            Path(os.fsdecode(os.path.join(where, name))).write_bytes(contents[name])
    assert main(["lists", str(tmp_path), "--style", "myrtle", "--split", "train=1"]) == 0
    dataset = LabelMapDataset(dataset_path=str(tmp_path), image_paths="train_imagepaths.txt")
    assert len(dataset) == 60
    for index in range(60):
        data, label = dataset.load(index)
        path = os.fsencode(dataset.path_of(index))
        assert contents[os.path.basename(path)] == data
        assert os.fsencode(dataset.classes[int(label)]) == os.path.basename(os.path.dirname(path))
    assert main(["lists", str(tmp_path / "images"), "--split", "train=1"]) == 0
    assert read_class_names(str(tmp_path / "images/classes.txt")) == dataset.classes


def test_an_escape_that_is_none_is_told_with_its_line(resisc: Path) -> None:
    (resisc / "bad.txt").write_text("images/airplane/airplane_0.jpg\n\\images/x\\y/1.jpg\n")
    with pytest.raises(DataError, match=r"bad\.txt:2: unknown escape"):
        LabelMapDataset(dataset_path=str(resisc), image_paths="bad.txt")


def test_labels_follow_the_map_and_not_the_alphabet(resisc: Path) -> None:
    (resisc / "label_map.json").write_text('{"airplane": 1, "beach": 0}')
    dataset = LabelMapDataset(dataset_path=str(resisc), image_paths="val_imagepaths.txt")
    assert dataset.classes == ["beach", "airplane"]
    assert dataset.load(0) == (b"airplane", 1)


@pytest.mark.parametrize(
    ("label_map", "paths", "message"),
    [
        (
            {"airplane": 0},
            "\ufeff\nimages/airplane/airplane_1.jpg\r\n\r\nimages/beach/beach_1.jpg\r\n",
            r"list\.txt:4: images/beach/beach_1\.jpg lies in a folder that is none of",
        ),
        ({"airplane": 1}, "images/airplane/airplane_1.jpg", "the numbers 0 to 0"),
        (
            {"airplane": 0},
            "\n  \nairplane/x.jpg",
            r"list\.txt:3: airplane/x\.jpg is no image; wanted images/CLASS/FILE",
        ),
        ({"airplane": 0}, "", "the list is empty"),
        ([1], "images/airplane/x.jpg", "is no JSON object"),
        (
            {"airplane": 0},
            "images/airplane/airplane_1.jpg\n\nimages/airplane/nowhere.jpg",
            r"list\.txt:3: the image .*nowhere\.jpg does not exist \(1 of 2",
        ),
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
