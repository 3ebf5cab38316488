"""ImageNet-21K from class folders to training lists, in one command that can be interrupted.

What PASSL documents as a shell pipe and two loose scripts: hash every image, merge equal images
into one sample with several labels, and take a small validation list to watch the training by.  On
the same listing in the same order the three files are those of PASSL's scripts, byte for byte
(``tests/unit/data/prepare`` runs them).  The default order is sorted, so that anyone gets the same
lists.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from passl.checkpoint.disk import FileDigest
from passl.checkpoint.manifest import json_bytes
from passl.data.names import names_text, printable
from passl.data.prepare.alone import alone_in
from passl.data.prepare.listing import (
    Excluded,
    Listing,
    folders_without_images,
    left_out,
    list_images,
)
from passl.data.prepare.md5 import hash_files
from passl.data.prepare.md5_state import Md5State
from passl.data.prepare.md5sum_file import excluded_text, read_md5sum, write_md5sum
from passl.data.prepare.merge import Merged, merge_by_digest, write_bytes, write_list
from passl.errors import ConfigError, DataError

__all__ = ["ALL_LIST", "DUMMY_VAL_LIST", "Options", "Summary", "prepare", "release_of"]

MD5SUM, ALL_LIST, DUMMY_VAL_LIST = "md5sum.txt", "image_all_list.txt", "image_dummy_val_list.txt"
CLASSES, EXCLUDED, STATISTICS, MANIFEST = (
    "classes.txt",
    "excluded.txt",
    "statistics.json",
    "manifest.json",
)
_FILES = (MD5SUM, ALL_LIST, DUMMY_VAL_LIST, CLASSES, EXCLUDED, STATISTICS, MANIFEST)
_STATE = ".md5.state"

_SYNSET = re.compile(r"n\d{8}")
#: Number of classes -> release.  Source: image-net.org's "fall11" and "winter21" archives, and for
#: the subsets Ridnik et al. 2021, arXiv 2104.10972, section 2.1.
_RELEASES = {
    21841: "ImageNet-21K, release fall11",
    19167: "ImageNet-21K, release winter21",
    11221: "ImageNet-21K-P of release fall11",
    10450: "ImageNet-21K-P of release winter21",
    1000: "ImageNet-1K",
}
_NEAR = 0.1  # a release with a tenth more or fewer classes is worth naming
_EMPTY = np.frombuffer(hashlib.md5(b"", usedforsecurity=False).digest(), np.uint64)
#: Images that a class of ImageNet-21K-P has at least.  Source: as above.
SUBSET_MIN_IMAGES = 500

Say = Callable[[str], None]
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Options:
    """What to make of which folder.

    Attributes:
        root: holds ``images/CLASS/FILE``, or the class folders themselves.
        out: folder of the results.
        md5sum: an existing output of ``md5sum``, used in its order in place of hashing.
        num_workers: processes that hash.
        num_val: single-label images of each class in the dummy validation list; 0 for no list.
        min_images: leave out classes with fewer images.
        classes: leave out classes that are not named here.
    """

    root: Path
    out: Path
    md5sum: Optional[Path] = None
    num_workers: int = 2
    num_val: int = 20
    min_images: int = 0
    classes: Optional[list[str]] = None


@dataclass
class Summary:
    """What was found and written.

    Attributes:
        release: what the classes say this is.
        num_files: image files, copies included.
        num_images: different images.
        num_multi_label: of these, with more than one label.
        num_val: lines of the dummy validation list.
        class_counts: labels of each class in the list.
        excluded: files left out.
        lost: folders of which all files are left out, so that they are no classes.
        seconds: wall time.
    """

    release: str
    num_files: int
    num_images: int
    num_multi_label: int
    num_val: int
    class_counts: np.ndarray
    excluded: list[Excluded] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def describe(self) -> str:
        """A few lines for the terminal."""
        counts = self.class_counts
        lines = [
            f"{len(counts):,} class{'es' * (len(counts) != 1)}: {self.release}",
            f"{self.num_files:,} files, {self.num_images:,} different images, "
            f"{self.num_multi_label:,} with more than one label",
            f"labels a class: {counts.min()} to {counts.max()}, {counts.mean():.1f} on average",
        ]
        if self.num_val:
            lines.append(
                f"{self.num_val:,} images in the dummy validation list; training has them as well"
            )
        if self.excluded:
            lines += [*left_out(self.excluded), f"all that is left out is in {EXCLUDED}"]
        if self.lost:
            number = len(self.lost)
            lines.append(
                f"warning: {number:,} {'folders have' if number > 1 else 'folder has'} no image "
                f"that can be used, such as {printable(self.lost[0])}; labels do not count them"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """For ``statistics.json``."""
        return {
            "release": self.release,
            "classes": len(self.class_counts),
            "files": self.num_files,
            "images": self.num_images,
            "images_with_several_labels": self.num_multi_label,
            "validation_images": self.num_val,
            "excluded_files": len(self.excluded),
            "folders_without_images": self.lost,
            "labels_per_class": self.class_counts.tolist(),
        }


def prepare(options: Options, say: Say, progress: Optional[Progress] = None) -> Summary:
    """Do it all; what was hashed by an interrupted call is not hashed again.

    Args:
        options: what to do.
        say: called with a sentence at each stage.
        progress: called with (files hashed, files in all, those of them that were known).

    Raises:
        ConfigError: a folder or file that cannot be used, or that another command works in.
        DataError: no images, a listing of something else, or a process that was killed.
    """
    started = time.monotonic()
    if options.md5sum is None and not options.root.is_dir():
        raise ConfigError(
            f"{options.root}: there is no such folder; it should hold images/CLASS/IMAGE"
        )
    if options.md5sum is not None and not options.md5sum.is_file():
        raise ConfigError(f"--md5sum {options.md5sum}: there is no such file")
    _make_folder(options.out)
    with alone_in(options.out, _FILES):
        return _prepare(options, say, progress, started)


def _prepare(options: Options, say: Say, progress: Optional[Progress], started: float) -> Summary:
    state: Optional[Md5State] = None
    lost: list[str] = []
    if options.md5sum is None:
        listing, digests, state, lost = _hash(options, say, progress)
    else:
        listing, digests = _read(options.md5sum, options.root)
        say(f"{len(listing):,} files in {options.md5sum}, in its order")
        empty = int((digests.view(np.uint64) == _EMPTY).all(axis=1).sum())
        if empty:
            say(
                f"warning: {empty:,} of them are empty by their checksum, and no images; take "
                "their lines out of the listing"
            )
        listing, digests = _only(_choose_classes(listing, options, say), listing, digests)
    say(f"merging equal images and writing the lists to {options.out}")
    merged = merge_by_digest(digests, listing.table.labels)
    val = merged.first_single_label(options.num_val)
    summary = Summary(
        release=release_of(listing.classes),
        num_files=len(listing),
        num_images=len(merged),
        num_multi_label=int((merged.num_labels > 1).sum()),
        num_val=len(val),
        class_counts=np.bincount(merged.labels, minlength=len(listing.classes)),
        excluded=listing.excluded,
        lost=lost,
        seconds=time.monotonic() - started,
    )
    _write(options, listing, digests, merged, val, summary)
    if state is not None:
        state.remove()
    return summary


def release_of(classes: list[str]) -> str:
    """Which ImageNet these class folders are, by their names and number."""
    if not all(_SYNSET.fullmatch(name) for name in classes):
        return "no ImageNet: not all classes are named like n01440764"
    nearest = min(_RELEASES, key=lambda number: abs(number - len(classes)))
    if nearest == len(classes):
        return _RELEASES[nearest]
    if abs(nearest - len(classes)) > _NEAR * nearest:
        return "no release that is known by its number of classes"
    return f"no complete release; the nearest, {_RELEASES[nearest]}, has {nearest:,}"


# -- stages ----------------------------------------------------------------------------------------


def _hash(
    options: Options, say: Say, progress: Optional[Progress]
) -> tuple[Listing, np.ndarray, Md5State, list[str]]:
    """Files and hashes of the wanted classes, and folders that are none for lack of images."""
    root = options.root
    say(f"listing the images below {root}")
    below = ["images"] if (root / "images").is_dir() else []
    found = list_images(root, *below, lists=options.out)
    if not len(found):
        raise DataError(
            f"{root}: no images found; expected images/CLASS/IMAGE (or CLASS/IMAGE) with suffixes "
            "such as .JPEG, .jpg and .png"
        )
    listing = found.keep(_choose_classes(found, options, say))  # before all others are hashed
    not_wanted = set(found.classes) - set(listing.classes)
    try:
        state = Md5State(options.out / _STATE, root, listing.table)
        say(
            f"{len(listing):,} files in {len(listing.classes):,} folders; hashing with "
            f"{options.num_workers} processes"
            + (f", {state.num_known:,} are hashed already" if state.num_known else "")
        )
        faults = hash_files(
            root, listing.table, state, num_workers=options.num_workers, progress=progress
        )
    except OSError as error:
        raise ConfigError(
            f"{options.out}: cannot be written ({error.strerror}); choose another folder with --out"
        ) from error
    sound = np.asarray(state.records["size"] > 0)
    listing.excluded += faults
    if not sound.any():
        raise DataError(f"{root}: not one image can be read; the first: {faults[0].reason}")
    listing, digests = _only(sound, listing, np.asarray(state.records["md5"]))
    lost = [name for name in folders_without_images(listing) if name not in not_wanted]
    if faults:  # some classes may be too small now
        wanted = _choose_classes(listing, replace(options, classes=None), say)
        listing, digests = _only(wanted, listing, digests)
    return listing, digests, state, lost


def _only(
    wanted: np.ndarray, listing: Listing, digests: np.ndarray
) -> tuple[Listing, np.ndarray]:
    """The files with a true entry in ``wanted`` (bool [N])."""
    return (listing, digests) if wanted.all() else (listing.keep(wanted), digests[wanted])


def _read(path: Path, root: Path) -> tuple[Listing, np.ndarray]:
    try:
        return read_md5sum(path, root)
    except OSError as error:
        raise ConfigError(f"--md5sum {path}: cannot be read ({error.strerror})") from error


def _choose_classes(listing: Listing, options: Options, say: Say) -> np.ndarray:
    """Which files are of classes that are large enough and wanted: bool [N]."""
    counts = np.bincount(listing.table.labels, minlength=len(listing.classes))
    chosen = counts >= options.min_images
    if options.classes is not None:
        unknown = sorted(set(options.classes) - set(listing.classes))
        if unknown:
            raise ConfigError(
                f"--classes names {len(unknown)} folders that are not there, such as "
                f"{printable(unknown[0])}"
            )
        chosen &= np.isin(np.array(listing.classes), options.classes)
    if not chosen.any():
        raise ConfigError("no class is left; lower --min-images or name more in --classes")
    wanted = chosen[listing.table.labels]
    if not chosen.all():
        say(
            f"{int(chosen.sum()):,} of {len(listing.classes):,} classes are kept, with "
            f"{int(wanted.sum()):,} of {len(listing):,} files"
        )
    return wanted


def _write(
    options: Options,
    listing: Listing,
    digests: np.ndarray,
    merged: Merged,
    val: Merged,
    summary: Summary,
) -> None:
    out = options.out
    files: dict[str, FileDigest] = {}
    try:
        (out / MANIFEST).unlink(missing_ok=True)  # the last of an earlier run, whose files change
        if not options.num_val:
            (out / DUMMY_VAL_LIST).unlink(missing_ok=True)
        if options.md5sum is None:
            files[MD5SUM] = write_md5sum(out / MD5SUM, options.root, listing.table, digests)
        files[ALL_LIST] = write_list(out / ALL_LIST, listing.table, merged)
        if options.num_val:
            files[DUMMY_VAL_LIST] = write_list(out / DUMMY_VAL_LIST, listing.table, val)
        files[CLASSES] = write_bytes(out / CLASSES, names_text(listing.classes))
        excluded = os.fsencode(excluded_text(listing.excluded))
        files[EXCLUDED] = write_bytes(out / EXCLUDED, excluded)
        files[STATISTICS] = write_bytes(out / STATISTICS, json_bytes(summary.to_dict()))
        manifest = {
            "format": 1,
            "root": str(options.root),
            "order": "sorted" if options.md5sum is None else str(options.md5sum),
            "min_images": options.min_images,
            "num_val": options.num_val,
            "files": {name: vars(digest) for name, digest in files.items()},
        }
        write_bytes(out / MANIFEST, json_bytes(manifest))  # last: it vouches for the others
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be written ({error.strerror}); choose another folder with --out"
        ) from error


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be made ({error.strerror})") from error
