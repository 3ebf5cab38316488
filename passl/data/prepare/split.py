"""Lists for any tree of class folders, with a split that anyone can repeat.

Each class is shuffled by ``(seed, name of the class)`` and cut, so every class is in every part by
its share, and adding a class changes nothing for the others.  A tree that already has ``train/``
and ``val/`` is taken as it is split.
"""

from __future__ import annotations

import json
import os
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np

from passl.data.names import list_name, names_text
from passl.data.prepare.alone import alone_in
from passl.data.prepare.listing import Listing, left_out, list_images
from passl.data.prepare.merge import write_bytes
from passl.errors import ConfigError, DataError

__all__ = ["MYRTLE_PARTS", "SplitOptions", "make_lists", "parse_parts"]

_GIVEN = ("train", "val", "valid", "validation", "test")
_CLASSES = {"passl": "classes.txt", "myrtle": "label_map.json"}
#: The parts of myrtle-vision's NWPU-RESISC45.
MYRTLE_PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}


@dataclass(frozen=True)
class SplitOptions:
    """What to make of which tree.

    Attributes:
        root: holds the class folders, or ``train/`` and so on with class folders.
        out: folder of the lists.
        parts: name of each part and its share; they add up to 1.
        seed: of the shuffle; not used for ``myrtle``, which cuts the sorted files.
        style: ``passl`` writes ``<part>_list.txt`` and ``classes.txt``, ``myrtle`` writes
            ``<part>_imagepaths.txt`` and ``label_map.json``.
    """

    root: Path
    out: Path
    parts: dict[str, float]
    seed: int = 0
    style: Literal["passl", "myrtle"] = "passl"


def make_lists(options: SplitOptions) -> list[str]:
    """Write the lists; returns a sentence for each file.

    Raises:
        ConfigError: a folder that cannot be used.
        DataError: no images, or classes that are not in every part.
    """
    if not options.root.is_dir():
        raise ConfigError(f"{options.root}: there is no such folder")
    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed}: must not be negative")
    given = _given(options.root)
    if given:
        listing = list_images(options.root, *given, deepest=False, lists=options.out)
        part_of = _given_parts(listing, given)
    else:
        images = _images_folder(options)
        listing = list_images(options.root, *images, deepest=False, lists=options.out)
        part_of = _cut(listing, options)
    if not len(listing):
        raise DataError(f"{options.root}: no images found; expected CLASS/.../IMAGE")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        names = [_list_name(part, options.style) for part in part_of]
        with alone_in(options.out, [*names, _CLASSES[options.style]]):
            return [
                *_taken_as_split(given),
                *_write(listing, part_of, options),
                *_of_another_split(options, names),
                *left_out(listing.excluded),
                *_alike(listing.classes),
            ]
    except OSError as error:
        raise ConfigError(
            f"{options.out}: cannot be written ({error.strerror}); choose another folder with --out"
        ) from error


def parse_parts(text: str) -> dict[str, float]:
    """``train=0.8,val=0.2`` as a dictionary.

    Raises:
        ConfigError: it cannot be read, or the shares do not add up to 1.
    """
    parts: dict[str, float] = {}
    for item in text.split(","):
        name, equals, share = item.partition("=")
        if name.strip() in parts:
            raise ConfigError(f"--split {text}: names {name.strip()!r} twice")
        try:
            parts[name.strip()] = float(share)
        except ValueError:
            equals = ""
        if not equals or not name.strip().isidentifier() or not parts[name.strip()] > 0:
            raise ConfigError(f"--split {text}: {item!r} is no part; write train=0.8,val=0.2")
    if abs(sum(parts.values()) - 1) > 1e-6:
        raise ConfigError(f"--split {text}: the shares add up to {sum(parts.values()):g}, not to 1")
    return parts


def _given(root: Path) -> list[str]:
    """The parts of a tree that is split already: folders of these names with class folders in them.

    Without those, ``train`` may as well be a class, beside ``bus`` and ``tram``.
    """
    try:
        found = [
            name
            for name in sorted(_GIVEN)
            if (root / name).is_dir() and any(entry.is_dir() for entry in (root / name).iterdir())
        ]
    except OSError as error:
        raise ConfigError(
            f"{error.filename or root}: cannot be read ({error.strerror}); check its rights"
        ) from error
    return found if "train" in found else []


def _images_folder(options: SplitOptions) -> list[str]:
    """What the class folders lie in, if not right in the root: for myrtle ``images``."""
    if options.style != "myrtle":
        return []
    if not (options.root / "images").is_dir():
        raise ConfigError(
            f"{options.root}: there is no folder images/; myrtle's lists have paths such as "
            "images/CLASS/FILE, so move the class folders into it"
        )
    return ["images"]


def _taken_as_split(given: Sequence[str]) -> list[str]:
    """A sentence where the tree is split already."""
    if not given:
        return []
    names = ", ".join(f"{name}/" for name in given)
    return [f"{names} are taken as they are split; --split and --seed change nothing"]


def _list_name(part: str, style: str) -> str:
    return f"{part}_imagepaths.txt" if style == "myrtle" else f"{part}_list.txt"


def _of_another_split(options: SplitOptions, written: Sequence[str]) -> list[str]:
    """A sentence for each list that was not written now: it may share images with those."""
    found = sorted(path.name for path in options.out.glob(_list_name("*", options.style)))
    return [
        f"warning: {options.out / name} is of another split, and may hold images of these lists; "
        "remove it if it is not needed"
        for name in found
        if name not in written
    ]


def _alike(classes: Sequence[str]) -> list[str]:
    """A sentence for each two classes that look the same: accents can be composed in two ways."""
    seen: dict[str, str] = {}
    said = []
    for name in classes:
        other = seen.setdefault(unicodedata.normalize("NFKC", name).casefold().strip(), name)
        if other != name:
            said.append(
                f"warning: classes {other!a} and {name!a} differ only in case, blanks or "
                "how letters are composed; are they one?"
            )
    return said


def _given_parts(listing: Listing, names: Sequence[str]) -> dict[str, np.ndarray]:
    first = [os.fsencode(listing.table.name(i)).partition(b"/")[0] for i in range(len(listing))]
    tops = np.array(first, dtype=object)
    return {name: np.flatnonzero(tops == name.encode()) for name in names}


def _cut(listing: Listing, options: SplitOptions) -> dict[str, np.ndarray]:
    """The files of each part, class by class, those of a class in the order of the listing."""
    labels = listing.table.labels
    by_class = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=len(listing.classes)))
    pieces: dict[str, list[np.ndarray]] = {part: [] for part in options.parts}
    for name, files in zip(listing.classes, np.split(by_class, ends[:-1])):
        bounds = _bounds(len(files), list(options.parts.values()), options.style)
        if options.style == "passl":
            class_seed = zlib.crc32(os.fsencode(name))
            files = np.random.default_rng([options.seed, class_seed]).permutation(files)
        for part, begin, end in zip(options.parts, bounds, bounds[1:]):
            pieces[part].append(np.sort(files[begin:end]))
    part_of = {
        part: np.concatenate([np.zeros(0, np.int64), *found]) for part, found in pieces.items()
    }
    for part, files in part_of.items():
        if not len(files) and len(listing):
            raise DataError(
                f"part {part!r} is empty: the classes have too few images for its share"
            )
    return part_of


def _bounds(count: int, shares: Sequence[float], style: str) -> list[int]:
    """Where the parts of ``count`` files begin, and the end.

    myrtle's script truncates running sums of floats: 489, 71 and 140 of 700 files for 0.7, 0.1 and
    0.2.  Ours rounds.
    """
    sums = list(accumulate(shares))[:-1]
    inner = [int(s * count) if style == "myrtle" else round(s * count) for s in sums]
    return [0, *inner, count]


def _write(listing: Listing, part_of: dict[str, np.ndarray], options: SplitOptions) -> list[str]:
    out, table, said = options.out, listing.table, []
    for part, files in part_of.items():
        names = [list_name(os.fsencode(table.name(int(index)))) for index in files]
        if options.style == "myrtle":
            content = b"\n".join(names)
        else:
            labels = table.labels[files].tolist()
            lines = [b"%s %d\n" % pair for pair in zip(names, labels)]
            content = b"".join(lines)
        path = out / _list_name(part, options.style)
        write_bytes(path, content)
        present, known = len(np.unique(table.labels[files])), len(listing.classes)
        classes = f"{known}" if present == known else f"only {present} of the {known}"
        noun = "class" if known == 1 else "classes"
        said.append(f"{path}: {len(files):,} image{'s' * (len(files) != 1)} of {classes} {noun}")
    if options.style == "myrtle":
        label_map = {name: index for index, name in enumerate(listing.classes)}
        content = json.dumps(label_map, indent=2).encode()
    else:
        content = names_text(listing.classes)
    path = out / _CLASSES[options.style]
    write_bytes(path, content)
    number = len(listing.classes)
    return [*said, f"{path}: {number} class{'es' * (number != 1)}"]
