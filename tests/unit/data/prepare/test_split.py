"""``passl-data lists``: splits that anyone can repeat."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from passl.cli.data import main
from passl.data.names import read_names
from passl.data.prepare.split import MYRTLE_PARTS, SplitOptions, make_lists, parse_parts
from passl.errors import ConfigError, DataError


def make_tree(root: Path, counts: dict[str, int]) -> Path:
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number:04d}.jpg").write_bytes(b"x")
    return root


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_every_class_is_split_by_its_share_and_nothing_is_lost(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", {"cat": 50, "dog": 20, "big/emu": 10})
    make_lists(SplitOptions(root, tmp_path, {"train": 0.8, "val": 0.2}))
    train, val = lines(tmp_path / "train_list.txt"), lines(tmp_path / "val_list.txt")
    assert lines(tmp_path / "classes.txt") == ["big", "cat", "dog"]
    assert [sum(line.endswith(f" {label}") for line in val) for label in range(3)] == [2, 10, 4]
    assert len(train) == 64
    assert not set(train) & set(val)
    assert sorted(train + val) == sorted(
        f"{path.relative_to(root)} {['big', 'cat', 'dog'].index(path.relative_to(root).parts[0])}"
        for path in root.rglob("*.jpg")
    )


def test_split_is_repeatable_and_follows_the_seed(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", {"cat": 50, "dog": 50})
    drawn = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(number)
        make_lists(SplitOptions(root, out, {"train": 0.5, "val": 0.5}, seed=seed))
        drawn.append(lines(out / "train_list.txt"))
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_new_class_changes_nothing_for_the_others(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", {"cat": 30, "dog": 30})
    make_lists(SplitOptions(root, tmp_path / "a", {"train": 0.5, "val": 0.5}))
    make_tree(root, {"ant": 30})
    make_lists(SplitOptions(root, tmp_path / "b", {"train": 0.5, "val": 0.5}))
    before = {line.split()[0] for line in lines(tmp_path / "a/train_list.txt")}
    after = {line.split()[0] for line in lines(tmp_path / "b/train_list.txt")}
    assert {name for name in after if not name.startswith("ant")} == before


def test_given_parts_are_kept(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "data", {"train/cat": 3, "train/dog": 2, "val/cat": 1, "val/dog": 1}
    )
    make_lists(SplitOptions(root, tmp_path, {"train": 0.8, "val": 0.2}))
    assert lines(tmp_path / "val_list.txt") == ["val/cat/0000.jpg 0", "val/dog/0000.jpg 1"]
    assert len(lines(tmp_path / "train_list.txt")) == 5


def test_myrtle_style_has_the_counts_of_resisc45(tmp_path: Path) -> None:
    """700 images a class become 489, 71 and 140 (facts of myrtle-vision's script)."""
    root = make_tree(tmp_path / "NWPU-RESISC45", {"images/airplane": 700, "images/airport": 700})
    assert main(["lists", str(root), "--style", "myrtle"]) == 0
    counts = {
        part: len((root / f"{part}_imagepaths.txt").read_text().split("\n"))
        for part in MYRTLE_PARTS
    }
    assert counts == {"train": 2 * 489, "val": 2 * 71, "test": 2 * 140}
    assert lines(root / "train_imagepaths.txt")[0] == "images/airplane/0000.jpg"
    assert lines(root / "val_imagepaths.txt")[0] == "images/airplane/0489.jpg"
    assert json.loads((root / "label_map.json").read_text()) == {"airplane": 0, "airport": 1}
    assert not (root / "train_imagepaths.txt").read_text().endswith("\n")
    assert main(["lists", str(root), "--style", "myrtle"]) == 0, "the original fails when repeated"


def test_parts_are_read() -> None:
    assert parse_parts("train=0.7,val=0.1,test=0.2") == {"train": 0.7, "val": 0.1, "test": 0.2}


@pytest.mark.parametrize(
    ("text", "message"),
    [("a=0.5,a=0.5", "names 'a' twice"),
     ("train=0.7", "add up to 0.7"), ("train", "is no part"), ("a=x,b=1", "is no part"),
     ("train=-1,val=2", "is no part"), ("../x=0.5,y=0.5", "is no part")],
)  # fmt: skip
def test_wrong_parts_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_parts(text)


def test_one_is_not_many(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", {"cat": 2})
    said = make_lists(SplitOptions(root, tmp_path, {"train": 0.5, "val": 0.5}))
    assert [line.partition(": ")[2] for line in said] == ["1 image of 1 class"] * 2 + ["1 class"]


def test_what_is_left_out_and_classes_that_a_part_lacks_are_told(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", {"cat": 20, "dog": 2, "owl": 0})
    (root / "cat/link.jpg").symlink_to("nowhere")
    said = make_lists(SplitOptions(root, tmp_path, {"train": 0.8, "val": 0.2}))
    (root / "dog/link.jpg").symlink_to("nowhere")
    assert [line.partition(": ")[2] for line in said] == [
        "18 images of 2 classes",
        "4 images of only 1 of the 2 classes",
        "2 classes",
        "cat/link.jpg: a link that leads to no file",
        "owl/: an empty folder, and no class",
    ]
    said = make_lists(SplitOptions(root, tmp_path, {"train": 0.8, "val": 0.2}))
    assert "left out: 2, such as cat/link.jpg: a link that leads to no file" in said


def test_hidden_folders_are_no_classes_and_a_second_time_is_like_the_first(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"cat": 10, ".ipynb_checkpoints": 3, "dog": 10, "dog/.cache": 2})
    said = make_lists(SplitOptions(root, root, {"train": 0.8, "val": 0.2}))
    assert (root / "classes.txt").read_text() == "cat\ndog\n"
    assert said[-1] == "left out: dog/.cache: a hidden folder"
    before = {path.name: path.read_bytes() for path in root.glob("*.txt")}
    assert make_lists(SplitOptions(root, root, {"train": 0.8, "val": 0.2})) == said
    assert {path.name: path.read_bytes() for path in root.glob("*.txt")} == before


def test_a_seed_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--seed -1: must not be negative"):
        make_lists(SplitOptions(tmp_path, tmp_path, {"train": 1.0}, seed=-1))


def test_too_few_images_for_a_part_are_refused(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", {"cat": 1, "dog": 1})
    with pytest.raises(DataError, match="'val' is empty"):
        make_lists(SplitOptions(root, tmp_path, {"train": 0.9, "val": 0.1}))
    with pytest.raises(DataError, match="no images found"):
        make_lists(SplitOptions(make_tree(tmp_path / "empty", {"cat": 0}), tmp_path, {"train": 1}))


def test_folders_beside_given_parts_change_no_labels(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"train/cat": 2, "train/dog": 2, "val/dog": 1, "extra/aardvark": 3})
    (root / "train/stray.jpg").write_bytes(b"x")
    said = make_lists(SplitOptions(root, root, {"train": 1.0}))
    assert (root / "classes.txt").read_text() == "cat\ndog\n"
    assert lines(root / "val_list.txt") == ["val/dog/0000.jpg 1"]
    assert said[0] == "train/, val/ are taken as they are split; --split and --seed change nothing"
    assert said[-1] == "left out: train/stray.jpg: it lies in no class folder"


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"bus": 5, "train": 5})
    make_lists(SplitOptions(root, root, {"train": 0.8, "val": 0.2}))
    assert (root / "classes.txt").read_text() == "bus\ntrain\n"
    assert len(lines(root / "train_list.txt")) == 8


def test_lists_below_the_class_folders_are_no_class(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"cat": 5, "dog": 5})
    options = SplitOptions(root, root / "lists", {"train": 0.8, "val": 0.2})
    first = make_lists(options)
    assert make_lists(options) == first
    assert not [line for line in first if "left out" in line]


def test_myrtles_lists_need_its_layout(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"cat": 10})
    with pytest.raises(ConfigError, match="there is no folder images/"):
        make_lists(SplitOptions(root, root, MYRTLE_PARTS, style="myrtle"))


def test_a_link_to_itself_is_left_out(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"cat": 5})
    (root / "cat/loop.jpg").symlink_to("loop.jpg")
    said = make_lists(SplitOptions(root, root, {"train": 0.8, "val": 0.2}))
    assert said[-1].startswith("left out: cat/loop.jpg: cannot be looked at (")


def test_class_names_with_blanks_around_them_are_read_back(tmp_path: Path) -> None:
    names = {" cat": 2, "dog ": 2, "tab\t": 2, "owl": 2}
    root = make_tree(tmp_path, names)
    make_lists(SplitOptions(root, root, {"train": 0.5, "val": 0.5}))
    assert read_names(root / "classes.txt") == sorted(names)


def test_messages_hold_no_codes_of_a_terminal(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"cat": 5})
    open(os.fsencode(root) + b"/cat/\xff\x1b[31m\n.txt", "w").close()
    said = make_lists(SplitOptions(root, root, {"train": 0.8, "val": 0.2}))
    assert said[-1] == r"left out: cat/\xff\x1b[31m\n.txt: no image by its suffix"


def test_folders_nested_without_end_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cat"
    for _ in range(220):
        folder = folder / "d"
    folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match="lies more than 200 folders deep"):
        make_lists(SplitOptions(tmp_path, tmp_path, {"train": 1.0}))


def test_classes_that_look_the_same_are_told(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"caf\u00e9": 2, "cafe\u0301": 2, "tea": 2})
    said = make_lists(SplitOptions(root, root, {"train": 0.5, "val": 0.5}))
    assert said[-1].startswith(r"warning: classes 'cafe\u0301' and 'caf\xe9' differ only in case")
    assert len([line for line in said if "warning" in line]) == 1


def test_a_list_of_an_earlier_split_is_warned_of(tmp_path: Path) -> None:
    root = make_tree(tmp_path, {"cat": 10})
    make_lists(SplitOptions(root, root, {"train": 0.6, "val": 0.2, "test": 0.2}))
    (root / ".val_list.txt.tmp-12345").write_bytes(b"of a killed command")
    said = make_lists(SplitOptions(root, root, {"train": 0.8, "val": 0.2}))
    assert [line for line in said if "warning" in line] == [
        f"warning: {root / 'test_list.txt'} is of another split, and may hold images of these "
        "lists; remove it if it is not needed"
    ]
    assert not (root / ".val_list.txt.tmp-12345").exists()
