"""``passl-data imagenet1k`` on small archives laid out as the published ones."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from passl.cli.data import main
from passl.data.lists import read_list
from passl.data.prepare import imagenet1k
from passl.data.prepare.imagenet1k import Sources, prepare
from passl.errors import ConfigError, DataError

CLASSES = ["n01440764", "n01443537", "n02113978"]
#: ILSVRC2012_ID of each class: not the order of the names.
IDS = {"n02113978": 1, "n01440764": 2, "n01443537": 3}
TRUTH = [2, 1, 3, 3]  # of validation images 1 to 4


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def make_archives(root: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="scipy writes the development kit's meta.mat")
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for name in reversed(CLASSES):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for number in range(3):
                    add(archive, f"{name}_{number}.JPEG", f"{name} {number}".encode())
            add(outer, f"{name}.tar", inner.getvalue())
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as archive:
        for number in range(len(TRUTH), 0, -1):
            add(archive, f"ILSVRC2012_val_{number:08d}.JPEG", f"val {number}".encode())
    synsets = np.array(
        # The last one is no leaf: the real file has 1860 synsets, of which 1000 are classes.
        [(number, name, "words") for name, number in IDS.items()] + [(4, "n00001740", "entity")],
        dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")],
    )
    meta = io.BytesIO()
    scipy_io.savemat(meta, {"synsets": synsets.reshape(-1, 1)})
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        truth = "".join(f"{number}\n" for number in TRUTH)
        add(
            archive,
            "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
            truth.encode(),
        )


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


EXPECTED_VAL = [
    "val/ILSVRC2012_val_00000001.JPEG 0",
    "val/ILSVRC2012_val_00000002.JPEG 2",
    "val/ILSVRC2012_val_00000003.JPEG 1",
    "val/ILSVRC2012_val_00000004.JPEG 1",
]


def test_archives_become_folders_and_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_archives(tmp_path)
    assert main(["imagenet1k", str(tmp_path)]) == 0
    assert lines(tmp_path / "val_list.txt") == EXPECTED_VAL
    train = lines(tmp_path / "train_list.txt")
    assert train[:4] == [
        "train/n01440764/n01440764_0.JPEG 0",
        "train/n01440764/n01440764_1.JPEG 0",
        "train/n01440764/n01440764_2.JPEG 0",
        "train/n01443537/n01443537_0.JPEG 1",
    ]
    assert len(train) == 9
    assert (tmp_path / "val/ILSVRC2012_val_00000003.JPEG").read_bytes() == b"val 3"
    assert lines(tmp_path / "classes.txt") == CLASSES
    assert "3 classes; ImageNet-1K has 1000" in capsys.readouterr().out
    assert len(read_list(tmp_path / "train_list.txt", class_num=3)) == 9


def test_an_interrupted_extraction_goes_on_with_the_missing_classes(tmp_path: Path) -> None:
    make_archives(tmp_path)
    calls = 0

    def stop_at_second(done: int, total: int, _known: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(Sources(tmp_path), lambda _: None, stop_at_second)
    assert not (tmp_path / "train").exists(), "an incomplete folder must not be taken for the data"
    kept = tmp_path / "train.partial/n02113978/n02113978_0.JPEG"
    before = kept.stat().st_mtime_ns
    prepare(Sources(tmp_path), lambda _: None)
    assert (tmp_path / "train/n02113978/n02113978_0.JPEG").stat().st_mtime_ns == before
    assert len(lines(tmp_path / "train_list.txt")) == 9


def test_class_folders_need_no_development_kit(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for name in CLASSES[:2]:
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            (folder / "x.JPEG").write_bytes(b"x")
    prepare(Sources(tmp_path), lambda _: None)
    assert lines(tmp_path / "val_list.txt") == ["val/n01440764/x.JPEG 0", "val/n01443537/x.JPEG 1"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither a folder train/ nor ILSVRC2012_img_train.tar"):
        prepare(Sources(tmp_path), lambda _: None)
    make_archives(tmp_path)
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(ConfigError, match="--devkit"):
        prepare(Sources(tmp_path), lambda _: None)


def test_a_missing_validation_image_is_noticed(tmp_path: Path) -> None:
    make_archives(tmp_path)
    prepare(Sources(tmp_path), lambda _: None)
    (tmp_path / "val/ILSVRC2012_val_00000002.JPEG").unlink()
    with pytest.raises(DataError, match=r"3 validation images, but .* labels for 4"):
        prepare(Sources(tmp_path), lambda _: None)


def test_a_truncated_archive_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    make_archives(tmp_path)
    archive = tmp_path / "ILSVRC2012_img_train.tar"
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(DataError, match="damaged"):
        prepare(Sources(tmp_path), lambda _: None)
    assert not (tmp_path / "train").exists()


def test_a_damaged_header_in_the_archive_is_refused(tmp_path: Path) -> None:
    make_archives(tmp_path)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1].offset
    data = bytearray(path.read_bytes())
    data[last] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        prepare(Sources(tmp_path), print)
    assert not (tmp_path / "train").exists()


def test_an_archive_cannot_write_outside(tmp_path: Path) -> None:
    make_archives(tmp_path)
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as archive:
        for number in range(1, 5):
            add(archive, f"../../ILSVRC2012_val_{number:08d}.JPEG", b"x")
        add(archive, "../../evil.sh", b"x")
        link = tarfile.TarInfo("link.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    before = {path.name for path in tmp_path.parent.iterdir()}
    prepare(Sources(tmp_path), lambda _: None)
    assert {path.name for path in tmp_path.parent.iterdir()} == before
    assert sorted(path.name for path in (tmp_path / "val").iterdir()) == [
        f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 5)
    ]


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_development_kit_is_named(tmp_path: Path, damage: str) -> None:
    make_archives(tmp_path)
    kit = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    content = kit.read_bytes()
    kit.write_bytes(content[: len(content) // 2] if damage == "cut" else b"garbage")
    with pytest.raises(DataError, match=f"{kit}: is damaged, or no archive .*; fetch it again"):
        prepare(Sources(tmp_path), lambda _: None)
    with pytest.raises(ConfigError, match="--devkit nowhere: there is no such file"):
        prepare(Sources(tmp_path, devkit=Path("nowhere")), lambda _: None)


@pytest.mark.parametrize("content", [b"", b"garbage", b"MATLAB 5.0 MAT-file" + bytes(500)])
def test_damaged_meta_data_are_named(content: bytes) -> None:
    pytest.importorskip("scipy.io", reason="scipy reads the development kit's meta.mat")
    with pytest.raises(DataError, match=r"kit: meta\.mat is not as expected"):
        imagenet1k._wnids(content, Path("kit"))


def test_an_image_beside_the_class_folders_changes_no_label(tmp_path: Path) -> None:
    make_archives(tmp_path)
    prepare(Sources(tmp_path), lambda _: None)
    before = (tmp_path / "train_list.txt").read_text()
    (tmp_path / "train/0.JPEG").write_bytes(b"x")
    (tmp_path / "val/0.JPEG").write_bytes(b"x")
    (tmp_path / "val/.cache").mkdir()
    said = prepare(Sources(tmp_path), lambda _: None)
    assert (tmp_path / "train_list.txt").read_text() == before
    assert "left out: train/0.JPEG: it lies in no class folder" in said
    assert "left out: 2, such as val/.cache: not named as a validation image" in said


def test_what_is_not_extracted_is_told(tmp_path: Path) -> None:
    make_archives(tmp_path)
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "a") as archive:
        add(archive, "x.jpg", b"x")
    said: list[str] = []
    prepare(Sources(tmp_path), said.append)
    assert [line.partition(" of its")[0] for line in said if "warning" in line] == [
        "warning: val: 1 member"
    ]
