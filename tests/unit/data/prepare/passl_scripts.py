"""The three steps of PASSL's ImageNet-21K recipe as separate programs, to compare with.

The steps and their formats are those of the section "ImageNet21K data preparation" in PASSL 2.5's
``tasks/classification/vit/README.md``: ``find | xargs md5sum``, grouping by hash in the order of
the listing, and the first 20 single-label images of each class.  Written from that description
with plain dictionaries, in another way than :mod:`passl.data.prepare.merge`; names must not
contain white space, which PASSL's scripts cannot read.
"""

from __future__ import annotations

import subprocess
from pathlib import Path


def md5sum_of(root: Path) -> str:
    """Step 1, by the tools themselves: paths as ``find`` gives them, in its order."""
    command = f"find {root}/images/ -type f -print0 | xargs --null md5sum"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    return done.stdout


def all_list(md5sum: str, prefix: str) -> str:
    """Step 2."""
    pairs = [line.replace(prefix, "").split() for line in md5sum.splitlines()]
    classes = sorted({path.split("/")[-2] for _, path in pairs})
    number = {name: index for index, name in enumerate(classes)}
    groups: dict[str, list[str]] = {}
    for digest, path in pairs:
        groups.setdefault(digest, []).append(path)
    samples = [
        (paths[0], sorted({number[path.split("/")[-2]] for path in paths}))
        for paths in groups.values()
    ]
    samples.sort(key=lambda sample: sample[1][0])
    return "".join(f"{path} {','.join(map(str, labels))}\n" for path, labels in samples)


def dummy_val_list(all_images: str, count: int = 20) -> str:
    """Step 3."""
    by_class: dict[str, list[str]] = {}
    for line in all_images.splitlines():
        path, labels = line.split()
        if "," not in labels:
            by_class.setdefault(labels, []).append(path)
    return "".join(
        f"{path} {label}\n" for label, paths in by_class.items() for path in paths[:count]
    )
