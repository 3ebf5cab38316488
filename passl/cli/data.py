"""``passl-data``: get data sets ready for training."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from passl.cli.common import command_parser, examples_of_subcommands, run_command
from passl.cli.preview import add_preview
from passl.errors import EXIT_OK, ConfigError

__all__ = ["build_parser", "main"]

_EPILOG = """examples:
  passl-data imagenet21k dataset/ImageNet21K
  passl-data imagenet21k dataset/ImageNet21K --md5sum md5sum.txt --out lists
  passl-data imagenet1k dataset/ILSVRC2012
  passl-data lists my_images --split train=0.8,val=0.2
  passl-data lists NWPU-RESISC45 --style myrtle
  passl-data preview -c quickstart/ViT_micro_digits --out digits.png

Interrupted at any point, the same command goes on where it was.
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(build_parser(), lambda arguments: int(arguments.act(arguments)), argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "passl-data",
        "Make lists and labels of downloaded data sets, and look at what models see.",
        _EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_imagenet21k(commands)
    _add_imagenet1k(commands)
    _add_lists(commands)
    add_preview(commands)
    examples_of_subcommands(parser)
    return parser


def _add_imagenet21k(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "imagenet21k",
        help="checksums, multi-labels and lists of ImageNet-21K",
        description="Hash every image below ROOT, merge equal ones into one sample with several "
        "labels, and write md5sum.txt, image_all_list.txt, image_dummy_val_list.txt, classes.txt, "
        "excluded.txt, statistics.json and manifest.json.",
    )
    parser.add_argument("root", metavar="ROOT", help="holds images/CLASS/IMAGE, or CLASS/IMAGE")
    parser.add_argument("--out", metavar="DIR", help="folder of the results (default: ROOT)")
    parser.add_argument(
        "--md5sum",
        metavar="FILE",
        help="an existing output of md5sum, used in its order in place of hashing",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=max(1, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else 2,
        metavar="N",
        help="processes that hash (default: one a core, %(default)s)",
    )
    parser.add_argument(
        "--num-val",
        type=int,
        default=20,
        metavar="N",
        help="single-label images of each class in the dummy validation list; 0 for none "
        "(default: 20)",
    )
    parser.add_argument(
        "--subset",
        choices=["21k-p"],
        help="21k-p: only classes with at least 500 images, as ImageNet-21K-P (10450 classes of "
        "release winter21)",
    )
    parser.add_argument("--min-images", type=int, default=0, metavar="N", help="of each class")
    parser.add_argument("--classes", metavar="FILE", help="keep only these, one name a line")
    parser.set_defaults(act=_imagenet21k)


def _imagenet21k(arguments: argparse.Namespace) -> int:
    from passl.data.prepare.imagenet21k import SUBSET_MIN_IMAGES, Options, prepare
    from passl.logs.progress import CountProgress

    if arguments.workers < 1 or arguments.num_val < 0 or arguments.min_images < 0:
        raise ConfigError("--workers must be at least 1, --num-val and --min-images at least 0")
    options = Options(
        root=Path(arguments.root),
        out=Path(arguments.out or arguments.root),
        md5sum=Path(arguments.md5sum) if arguments.md5sum else None,
        num_workers=arguments.workers,
        num_val=arguments.num_val,
        min_images=max(arguments.min_images, SUBSET_MIN_IMAGES if arguments.subset else 0),
        classes=_names(arguments.classes),
    )
    with _going_on_later(), CountProgress("hashing", unit="files") as progress:
        summary = prepare(options, progress.say, progress)
    print(summary.describe())
    print(f"done in {summary.seconds:.1f} s; the lists are in {options.out}")
    return EXIT_OK


def _add_imagenet1k(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "imagenet1k",
        help="folders and lists of ImageNet-1K from its archives",
        description="Extract the published archives that lie in ROOT (unless train/ and val/ are "
        "there) and write train_list.txt, val_list.txt and classes.txt.",
    )
    parser.add_argument("root", metavar="ROOT", help="holds the archives, or train/ and val/")
    parser.add_argument("--train-tar", metavar="FILE", help="ILSVRC2012_img_train.tar")
    parser.add_argument("--val-tar", metavar="FILE", help="ILSVRC2012_img_val.tar")
    parser.add_argument("--devkit", metavar="PATH", help="ILSVRC2012_devkit_t12.tar.gz or folder")
    parser.set_defaults(act=_imagenet1k)


def _imagenet1k(arguments: argparse.Namespace) -> int:
    from passl.data.prepare.imagenet1k import Sources, prepare
    from passl.logs.progress import CountProgress

    sources = Sources(
        Path(arguments.root),
        *(
            Path(path) if path else None
            for path in (arguments.train_tar, arguments.val_tar, arguments.devkit)
        ),
    )
    with _going_on_later(), CountProgress("extracting", unit="archives") as progress:
        lines = prepare(sources, progress.say, progress)
    print("\n".join(lines))
    return EXIT_OK


def _add_lists(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "lists",
        help="training and validation lists of any tree of class folders",
        description="Write lists for a folder of class folders, each class split by the same "
        "shares; or for one that has train/ and val/ already.",
    )
    parser.add_argument("root", metavar="DIR", help="holds CLASS/.../IMAGE, or train/CLASS/IMAGE")
    parser.add_argument("--out", metavar="DIR", help="folder of the lists (default: DIR)")
    parser.add_argument(
        "--split",
        metavar="PART=SHARE,...",
        help="default: train=0.8,val=0.2; with --style myrtle train=0.7,val=0.1,test=0.2",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the shuffle (default: 0)")
    parser.add_argument(
        "--style",
        choices=["passl", "myrtle"],
        default="passl",
        help="myrtle: <part>_imagepaths.txt and label_map.json, sorted files cut without a shuffle",
    )
    parser.set_defaults(act=_lists)


def _lists(arguments: argparse.Namespace) -> int:
    from passl.data.prepare.split import MYRTLE_PARTS, SplitOptions, make_lists, parse_parts

    parts = MYRTLE_PARTS if arguments.style == "myrtle" else {"train": 0.8, "val": 0.2}
    options = SplitOptions(
        root=Path(arguments.root),
        out=Path(arguments.out or arguments.root),
        parts=parse_parts(arguments.split) if arguments.split else parts,
        seed=arguments.seed,
        style=arguments.style,
    )
    print("\n".join(make_lists(options)))
    return EXIT_OK


@contextmanager
def _going_on_later() -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print("passl-data: not finished; the same command goes on where it was", file=sys.stderr)
        raise


def _names(path: Optional[str]) -> Optional[list[str]]:
    if path is None:
        return None
    from passl.data.names import read_names

    try:
        return read_names(Path(path))
    except OSError as error:
        raise ConfigError(f"--classes {path}: cannot be read ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(main())
