"""``passl-data imagenet21k`` against md5sum itself and against PASSL's recipe."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from unit.data.prepare import passl_scripts

from passl.cli.data import main
from passl.data.lists import read_list
from passl.data.prepare import imagenet21k, md5, md5_state
from passl.data.prepare.imagenet21k import Options, prepare, release_of
from passl.data.prepare.md5_state import Md5State
from passl.data.table import SampleTable, TableBuilder
from passl.errors import ConfigError, DataError

NUM_CLASSES = 40


def make_tree(root: Path, num_files: int, seed: int = 0) -> Path:
    """Small files in class folders; about one in eight is a copy, in its class or another."""
    rng = random.Random(seed)
    contents: list[bytes] = []
    for number in range(num_files):
        class_name = f"n{rng.randrange(NUM_CLASSES):08d}"
        folder = root / "images" / class_name
        folder.mkdir(parents=True, exist_ok=True)
        if contents and rng.random() < 0.125:
            content = rng.choice(contents)
        else:
            content = rng.randbytes(rng.randrange(1, 200))
            contents.append(content)
        (folder / f"{class_name}_{number}.JPEG").write_bytes(content)
    return root


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 - making 5000 files on a disk takes ten seconds
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield make_tree(Path(folder), 5000)


def run(root: Path, out: Path, **options: object) -> imagenet21k.Summary:
    return prepare(Options(root=root, out=out, **options), say=lambda _: None)  # type: ignore[arg-type]


def test_lists_of_an_md5sum_listing_are_those_of_passls_scripts(tree: Path, tmp_path: Path) -> None:
    listing = passl_scripts.md5sum_of(tree)  # in the order of the file system
    (tmp_path / "md5sum.txt").write_text(listing, encoding="utf-8")
    summary = run(tree, tmp_path / "out", md5sum=tmp_path / "md5sum.txt")
    expected = passl_scripts.all_list(listing, f"{tree}/")
    assert read(tmp_path / "out/image_all_list.txt") == expected
    assert read(tmp_path / "out/image_dummy_val_list.txt") == passl_scripts.dummy_val_list(expected)
    assert summary.num_files == 5000
    assert 4000 < summary.num_images < 5000, "there are copies"
    assert summary.num_multi_label > 100


def test_own_hashing_gives_the_same_lists_in_sorted_order(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    listing = "".join(
        sorted(passl_scripts.md5sum_of(tree).splitlines(keepends=True), key=lambda line: line[34:])
    )
    assert read(tmp_path / "md5sum.txt") == listing
    assert read(tmp_path / "image_all_list.txt") == passl_scripts.all_list(listing, f"{tree}/")
    val = passl_scripts.dummy_val_list(read(tmp_path / "image_all_list.txt"))
    assert read(tmp_path / "image_dummy_val_list.txt") == val


def test_md5sum_itself_accepts_what_is_written(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    check = subprocess.run(
        ["md5sum", "--check", "--quiet", "--strict", str(tmp_path / "md5sum.txt")], check=False
    )
    assert check.returncode == 0


def test_result_does_not_depend_on_the_number_of_processes(tree: Path, tmp_path: Path) -> None:
    for workers in (1, 2, 3):
        run(tree, tmp_path / str(workers), num_workers=workers)
    for name in (imagenet21k.MD5SUM, imagenet21k.ALL_LIST, imagenet21k.MANIFEST):
        contents = {read(tmp_path / str(workers) / name) for workers in (1, 2, 3)}
        assert len(contents) == 1, name


def test_a_killed_run_continues_without_hashing_again(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    def kill_at_half(done: int, total: int, _known: int) -> None:
        if done >= total // 2:
            raise Killed

    options = Options(root=tree, out=tmp_path, num_workers=1)
    with pytest.raises(Killed):
        prepare(options, lambda _: None, kill_at_half)
    assert not (tmp_path / imagenet21k.ALL_LIST).exists()

    read_files: list[bytes] = []
    real = md5._hash_file

    def counting(path: bytes, *known: int) -> object:
        found = real(path, *known)
        if found is not None and found[0] is not None:
            read_files.append(path)
        return found

    monkeypatch.setattr(md5, "_hash_file", counting)
    prepare(options, lambda _: None)
    assert len(read_files) == 2500
    listing = passl_scripts.md5sum_of(tree)
    expected = "".join(sorted(listing.splitlines(keepends=True), key=lambda line: line[34:]))
    assert read(tmp_path / "md5sum.txt") == expected


def test_sigkill_of_the_command_leaves_no_process_and_loses_nothing(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", 1500)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "passl.cli.data", "imagenet21k", str(root), "--out", str(out)]
    process = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.DEVNULL)
    while process.poll() is None and not _has_hashed(out / ".md5.state"):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 300
    while _children_named(str(out)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _children_named(str(out)), "a hashing process outlived the command"
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    digests = {line[:32] for line in read(out / "md5sum.txt").splitlines()}
    files = [path.read_bytes() for path in (root / "images").rglob("*.JPEG")]
    assert digests == {hashlib.md5(content, usedforsecurity=False).hexdigest() for content in files}


def _has_hashed(state: Path) -> bool:
    try:
        return any(np.fromfile(p, dtype=np.uint8).any() for p in state.glob("records-*.bin"))
    except OSError:  # all is hashed, and the state gone between two looks
        return False


def _children_named(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if text in command and int(entry.name) != os.getpid():
                found.append(entry.name)
    return found


def test_files_that_came_or_changed_are_hashed_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(tmp_path / "data", 60)
    options = Options(root=root, out=tmp_path / "out", num_workers=1)
    # Stop after the hashing, so that its state is kept.
    monkeypatch.setattr(imagenet21k, "merge_by_digest", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(options, lambda _: None)
    monkeypatch.undo()

    paths = sorted((root / "images").rglob("*.JPEG"))
    paths[10].write_bytes(b"changed")
    paths[20].unlink()
    (paths[30].parent / "a_new_one.JPEG").write_bytes(b"new")
    read_files: list[str] = []
    real = md5._hash_file

    def counting(path: bytes, *known: int) -> object:
        found = real(path, *known)
        if found is not None and found[0] is not None:
            read_files.append(Path(os.fsdecode(path)).name)
        return found

    monkeypatch.setattr(md5, "_hash_file", counting)
    summary = prepare(options, lambda _: None)
    assert sorted(read_files) == sorted([paths[10].name, "a_new_one.JPEG"])
    assert summary.num_files == 60


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("killed_before", ["records", "names"])
def test_a_start_that_is_killed_never_mixes_up_what_was_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_before: str
) -> None:
    class Killed(Exception):
        pass

    def table(*names: str) -> SampleTable:
        builder = TableBuilder()
        for name in names:
            builder.append(name, 0)
        return builder.finish()

    def kill(*_: object) -> None:
        raise Killed

    state = Md5State(tmp_path, tmp_path, table("a/1", "a/3"))
    state.records["md5"] = [[1] * 16, [3] * 16]
    state.records["mtime_ns"] = state.records["size"] = 7  # all of one size and time
    part = "atomic_file" if killed_before == "records" else "write_table_file"
    with monkeypatch.context() as patch:
        patch.setattr(md5_state, part, kill)
        with pytest.raises(Killed):
            Md5State(tmp_path, tmp_path, table("a/2", "a/3"))  # as many files, but others
    again = Md5State(tmp_path, tmp_path, table("a/0", "a/3"))
    assert again.records["md5"][:, 0].tolist() == [0, 3]
    assert again.num_known == 1
    assert len(list(tmp_path.glob("records-*"))) == 1


def test_any_file_name_can_be_listed_and_read_back(tmp_path: Path) -> None:
    names = [b"a b.JPEG", b"two  spaces .JPEG", b"line\nend.JPEG", b"back\\slash.JPEG",
             b"\xff\xfe.JPEG", b"cr\r.JPEG", b"7 8.JPEG", b"\\first.JPEG"]  # fmt: skip
    folder = os.fsencode(tmp_path / "data/images/n00000001")
    os.makedirs(folder)
    for number, name in enumerate(names):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(bytes([number]))
    run(tmp_path / "data", tmp_path)
    table = read_list(tmp_path / imagenet21k.ALL_LIST, multi_label=True, class_num=1)
    listed = {os.fsencode(table.name(index)) for index in range(len(table))}
    assert listed == {b"images/n00000001/" + name for name in names}
    check = subprocess.run(
        ["md5sum", "--check", "--quiet", "--strict", str(tmp_path / "md5sum.txt")], check=False
    )
    assert check.returncode == 0, "md5sum reads the names as we wrote them"
    again = tmp_path / "again"
    run(tmp_path / "data", again, md5sum=tmp_path / "md5sum.txt")
    assert (again / imagenet21k.ALL_LIST).read_bytes() == (
        tmp_path / imagenet21k.ALL_LIST
    ).read_bytes()


def test_empty_unreadable_and_foreign_files_are_reported_and_left_out(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", 30)
    folder = root / "images/n00000099"
    folder.mkdir()
    (folder / "empty.JPEG").write_bytes(b"")
    (folder / "dangling.JPEG").symlink_to("nowhere")
    os.mkfifo(folder / "fifo.JPEG")
    (root / "images/n00000100").mkdir()
    (folder / "readme.txt").write_text("no image")
    (folder / ".hidden.JPEG").write_bytes(b"x")
    summary = run(root, tmp_path / "out", num_workers=1)
    reasons = {Path(entry.name).name: entry.reason for entry in summary.excluded}
    assert reasons == {
        "empty.JPEG": "empty",
        "dangling.JPEG": "a link that leads to no file",
        "fifo.JPEG": "no regular file",
        "n00000100": "an empty folder, and no class",
        "readme.txt": "no image by its suffix",
        ".hidden.JPEG": "a hidden file",
    }
    assert summary.num_files == 30
    assert "n00000099" not in read(tmp_path / "out/classes.txt"), "a class without an image is none"
    assert len(read(tmp_path / "out/excluded.txt").splitlines()) == 6


def test_results_do_not_depend_on_those_that_lie_there_already(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", 30) / "images"  # class folders right in ROOT
    run(root, root, num_workers=1)
    names = (imagenet21k.EXCLUDED, imagenet21k.ALL_LIST, imagenet21k.MANIFEST)
    first = [read(root / name) for name in names]
    (root / ".md5.state").mkdir()  # as an interrupted run leaves it
    (root / ".md5.state/names.table").write_bytes(b"x")
    run(root, root, num_workers=1)
    assert [read(root / name) for name in names] == first
    assert first[0] == ""


def test_an_io_error_of_one_file_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(tmp_path / "data", 20)
    bad = os.fsencode(sorted((root / "images").rglob("*.JPEG"))[3])
    real_open = os.open

    def failing(path: bytes, *options: int) -> int:
        if path == bad:
            raise OSError(5, "Input/output error")
        return real_open(path, *options)

    monkeypatch.setattr(md5.os, "open", failing)
    summary = run(root, tmp_path / "out", num_workers=1)
    assert [entry.reason for entry in summary.excluded] == ["cannot be read (Input/output error)"]
    assert summary.num_files == 19


def test_subset_keeps_classes_with_enough_images_and_numbers_them_anew(tmp_path: Path) -> None:
    for class_name, count in (("n00000001", 3), ("n00000002", 6), ("n00000003", 7)):
        folder = tmp_path / "data" / class_name  # class folders without images/ above
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.jpg").write_bytes(f"{class_name} {number}".encode())
    summary = run(tmp_path / "data", tmp_path, min_images=6)
    assert read(tmp_path / "classes.txt") == "n00000002\nn00000003\n"
    assert summary.class_counts.tolist() == [6, 7]
    labels = {line.split()[1] for line in read(tmp_path / imagenet21k.ALL_LIST).splitlines()}
    assert labels == {"0", "1"}


def test_classes_are_chosen_by_names_with_blanks(tmp_path: Path) -> None:
    for name in ("big cat", "big dog", "cat"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.jpg").write_text(name)
    (tmp_path / "wanted.txt").write_text("big cat\ncat\n")
    wanted = str(tmp_path / "wanted.txt")
    out = tmp_path / "out"
    root = str(tmp_path / "data")
    assert main(["imagenet21k", root, "--out", str(out), "--classes", wanted]) == 0
    assert read(out / "classes.txt") == "big cat\ncat\n"


def test_only_wanted_classes_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for class_name, count in (("n00000001", 3), ("n00000002", 6), ("n00000003", 7)):
        folder = tmp_path / "data" / class_name
        folder.mkdir(parents=True)
        (folder / "readme.txt").write_text("no image")
        for number in range(count):
            (folder / f"{number}.jpg").write_bytes(f"{class_name} {number}".encode())
    (tmp_path / "data/n00000002/5.jpg").write_bytes(b"")
    read_files: list[bytes] = []
    real = md5._hash_file

    def counting(path: bytes, *known: int) -> object:
        read_files.append(path)
        return real(path, *known)

    monkeypatch.setattr(md5, "_hash_file", counting)
    with pytest.raises(ConfigError, match=r"names 1 folders that are not there, such as cat"):
        run(tmp_path / "data", tmp_path, classes=["cat"])
    assert not read_files, "a mistake is told before hours of hashing"
    summary = run(tmp_path / "data", tmp_path, min_images=6)
    assert len(read_files) == 13
    assert summary.class_counts.tolist() == [7], "one of the six is empty"
    assert summary.lost == [], "those that are too small are not lost"


def test_manifest_vouches_for_every_file(tree: Path, tmp_path: Path) -> None:
    run(tree, tmp_path)
    manifest = json.loads(read(tmp_path / imagenet21k.MANIFEST))
    assert sorted(manifest["files"]) == sorted(
        path.name for path in tmp_path.iterdir() if path.name != imagenet21k.MANIFEST
    )
    for name, entry in manifest["files"].items():
        content = (tmp_path / name).read_bytes()
        assert len(content) == entry["size"]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]


@pytest.mark.parametrize(
    ("count", "release"),
    [(21841, "fall11"), (19167, "winter21"), (10450, "ImageNet-21K-P of release winter21")],
)
def test_release_is_recognised_by_its_classes(count: int, release: str) -> None:
    assert release in release_of([f"n{number:08d}" for number in range(count)])


def test_other_folders_are_no_release() -> None:
    assert release_of([f"n{number:08d}" for number in range(19166)]) == (
        "no complete release; the nearest, ImageNet-21K, release winter21, has 19,167"
    )
    assert "no ImageNet" in release_of(["cat", "dog"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no line of md5sum\n", "is no line of md5sum"),
        ("0" * 32 + "  /elsewhere/images/n1/x.JPEG\n", "does not begin with"),
        ("0" * 31 + "x  ROOT/images/n1/x.JPEG\n", "is no line of md5sum"),
        ("0" * 32 + "  ROOT/x.JPEG\n", "no class folder"),
        ("", "empty"),
    ],
)
def test_a_bad_listing_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "md5sum.txt").write_text(text.replace("ROOT", str(tmp_path)))
    with pytest.raises(DataError, match=message):
        run(tmp_path, tmp_path / "out", md5sum=tmp_path / "md5sum.txt")
    assert not (tmp_path / "out" / imagenet21k.ALL_LIST).exists()


@pytest.mark.parametrize("spelled", ["{root}/", "", "./"])
def test_a_listing_may_have_been_made_anywhere_above_the_images(
    tree: Path, tmp_path: Path, spelled: str
) -> None:
    listing = passl_scripts.md5sum_of(tree)
    text = listing.replace(f"{tree}/", spelled.format(root=tree))
    (tmp_path / "md5sum.txt").write_text(text, encoding="utf-8")
    run(tree, tmp_path / "out", md5sum=tmp_path / "md5sum.txt")
    assert read(tmp_path / "out/image_all_list.txt") == passl_scripts.all_list(listing, f"{tree}/")


def test_a_listing_may_come_from_windows(tree: Path, tmp_path: Path) -> None:
    listing = passl_scripts.md5sum_of(tree)
    content = b"\xef\xbb\xbf" + listing.replace("\n", "\r\n").replace("  ", " *").encode()
    (tmp_path / "md5sum.txt").write_bytes(content)
    run(tree, tmp_path / "out", md5sum=tmp_path / "md5sum.txt")
    assert read(tmp_path / "out/image_all_list.txt") == passl_scripts.all_list(listing, f"{tree}/")


def test_empty_files_of_a_listing_are_told_of(tmp_path: Path) -> None:
    empty = hashlib.md5(b"", usedforsecurity=False).hexdigest()
    (tmp_path / "md5sum.txt").write_text(f"{empty}  {tmp_path}/images/n00000001/0.JPEG\n")
    said: list[str] = []
    prepare(Options(tmp_path, tmp_path, md5sum=tmp_path / "md5sum.txt"), said.append)
    assert said[1].startswith("warning: 1 of them are empty by their checksum")


def test_a_missing_listing_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        run(tmp_path, tmp_path / "out", md5sum=tmp_path / "md5sum.txt")
    assert list(tmp_path.iterdir()) == []


def test_an_image_beside_the_class_folders_is_no_class(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", 30)
    before = run(root, tmp_path / "before", num_workers=1)
    (root / "images/stray.JPEG").write_bytes(b"x")
    after = run(root, tmp_path / "after", num_workers=1)
    assert after.class_counts.tolist() == before.class_counts.tolist()
    assert [entry.reason for entry in after.excluded] == ["it lies in no class folder"]


def test_lists_below_root_are_not_listed(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "data", 30) / "images"  # class folders right in ROOT
    run(root, root / "lists", num_workers=1)
    first = read(root / "lists/manifest.json")
    run(root, root / "lists", num_workers=1)
    assert read(root / "lists/manifest.json") == first
    assert read(root / "lists/excluded.txt") == ""


def test_nothing_of_an_earlier_run_remains_that_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = make_tree(tmp_path / "data", 30), tmp_path / "out"
    run(root, out, num_workers=1)
    run(root, out, num_workers=1, num_val=0)
    assert not (out / imagenet21k.DUMMY_VAL_LIST).exists()
    monkeypatch.setattr(imagenet21k, "write_list", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(root, out, num_workers=1)
    assert not (out / imagenet21k.MANIFEST).exists(), "it vouches for files that are being changed"


def test_a_folder_that_loses_all_its_images_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = make_tree(tmp_path / "data", 30), tmp_path / "out"
    (root / "images/n00000099").mkdir()
    (root / "images/n00000099/0.JPEG").write_bytes(b"")
    assert main(["imagenet21k", str(root), "--out", str(out)]) == 0
    assert "1 folder has no image that can be used, such as n00000099" in capsys.readouterr().out
    assert json.loads(read(out / imagenet21k.STATISTICS))["folders_without_images"] == ["n00000099"]


def test_what_was_hashed_below_another_folder_does_not_count(tmp_path: Path) -> None:
    builder = TableBuilder()
    builder.append("a/1", 0)
    table = builder.finish()
    state = Md5State(tmp_path / "state", tmp_path / "one", table)
    state.records["size"] = 7
    state.records["md5"] = 1
    assert Md5State(tmp_path / "state", tmp_path / "two", table).num_known == 0


def test_a_file_system_that_gives_a_piece_at_a_time_is_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 8
    (tmp_path / "x").write_bytes(content)
    real = os.read
    monkeypatch.setattr(md5.os, "read", lambda handle, count: real(handle, min(count, 1000)))
    found = md5._hash_file(os.fsencode(tmp_path / "x"), 0, 0)
    assert found is not None
    assert found[0] == hashlib.md5(content, usedforsecurity=False).digest()


def test_ctrl_c_is_told_that_nothing_is_lost(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(imagenet21k, "hash_files", lambda *_, **__: _interrupt())
    assert main(["imagenet21k", str(tree), "--out", str(tmp_path)]) == 130
    assert "not finished; the same command goes on where it was" in capsys.readouterr().err


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="no images found"):
        run(tmp_path, tmp_path / "out")


def test_command_says_what_it_did(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["imagenet21k", str(tree), "--out", str(tmp_path), "--num-val", "0"]) == 0
    said = capsys.readouterr().out
    assert "40 classes: no release that is known" in said
    assert "5,000 files" in said
    assert not (tmp_path / imagenet21k.DUMMY_VAL_LIST).exists()
    assert main(["imagenet21k", str(tmp_path / "nowhere")]) == 2


@pytest.mark.parametrize("size", [1, 99, 100, 101, 250])
def test_files_larger_than_one_read_are_hashed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(md5, "_MOST_AT_ONCE", 100)
    (tmp_path / "x").write_bytes(bytes(range(size % 256)) * 2)
    content = (tmp_path / "x").read_bytes()
    found = md5._hash_file(os.fsencode(tmp_path / "x"), 0, 0)
    assert found is not None
    assert found[0] == hashlib.md5(content, usedforsecurity=False).digest()
