"""``passl-data preview``: a sheet of what a config's model will see."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from passl.cli.common import add_config_options, load_from_args
from passl.errors import EXIT_OK, ConfigError, DataError

if TYPE_CHECKING:
    from passl.config import Config
    from passl.data.loader import Loader

__all__ = ["add_preview"]


def add_preview(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str = "preview"
) -> None:
    """The subcommand, which ``passl-visualize`` has under another name."""
    parser = commands.add_parser(
        name,
        help="a picture of what a model will see",
        description="Draw the first images of an epoch after every transform of the config, with "
        "their targets. Each is augmented exactly as a run of this config augments it; "
        "Mixup and Cutmix mix the images of the sheet among themselves.",
    )
    add_config_options(parser)
    parser.add_argument("--out", default="preview.png", metavar="FILE", help="default: preview.png")
    parser.add_argument("--num", type=int, default=24, metavar="N", help="images (default: 24)")
    parser.add_argument("--mode", choices=["train", "eval"], default="train", help="which data set")
    parser.add_argument(
        "--epoch", type=int, default=1, metavar="E", help="from 1, the first of a run (default: 1)"
    )
    parser.add_argument(
        "--classes", metavar="FILE",
        help="names of the classes, one a line (default: those that the data set knows)",
    )
    parser.set_defaults(act=_preview)


def _preview(arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.num <= 400 or arguments.epoch < 1:
        raise ConfigError("--num must be from 1 to 400, and --epoch at least 1")
    config = load_from_args(arguments, "train" if arguments.mode == "train" else "eval")
    name = arguments.mode.capitalize()
    section = getattr(config.DataLoader, name)
    if section is None:
        raise ConfigError(f"{arguments.config} has no DataLoader.{name}")

    from passl.data.class_names import read_class_names
    from passl.data.pictures import parts_of_target, visible
    from passl.export.live import class_names
    from passl.visualize.augment import draw_sheet

    names = read_class_names(arguments.classes) if arguments.classes else None
    loader = _loader(config, name, arguments.num)
    names = names or class_names(config, loader.dataset)
    try:
        batch = next(loader.epoch(arguments.epoch))
    finally:
        loader.close()
    title = (
        f"{Path(arguments.config).name}: DataLoader.{name}, epoch {arguments.epoch}, first "
        f"{len(batch.images)} of {loader.num_samples:,}"
    )
    images = visible(batch.images, loader)
    targets = [parts_of_target(target, names) for target in batch.labels]
    draw_sheet(images, targets, title, _chain(section), Path(arguments.out))
    print(f"{arguments.out}: {len(images)} images of {images.shape[2]} x {images.shape[1]} pixels")
    return EXIT_OK


def _loader(config: Config, name: str, count: int) -> Loader:
    """A loader whose first batch is the sheet."""
    from passl.data.build import build_loader

    section = getattr(config.DataLoader, name)
    section = replace(section, sampler=replace(section.sampler, drop_last=False))
    try:
        return build_loader(
            section,
            mode=name.lower(),
            global_batch_size=count,
            class_num=config.Model.get("class_num"),
            seed=config.Global.seed,
        )
    except DataError as error:
        where = config.origin(f"DataLoader.{name}.dataset")
        raise ConfigError(f"{where}: DataLoader.{name}.dataset: {error}") from error


def _chain(section: Any) -> str:
    """The transforms in their order, with what chooses a policy."""
    steps = [_step(item) for item in section.dataset.get("transform_ops", ())]
    text = " \N{RIGHTWARDS ARROW} ".join(steps) or "no transforms"
    mixing = [_step(item) for item in section.batch_transform]
    return f"{text}; batches: {', '.join(mixing)}" if mixing else text


def _step(item: Any) -> str:
    policy = item.get("config_str") or item.get("mode")
    return f"{item['name']} ({policy})" if policy else str(item["name"])
