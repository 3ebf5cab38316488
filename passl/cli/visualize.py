"""``passl-visualize``: pictures of what a model looks at, of runs, and of mistakes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from passl.cli.common import (
    add_config_options,
    command_parser,
    examples_of_subcommands,
    run_command,
)
from passl.cli.preview import add_preview
from passl.errors import EXIT_OK, ConfigError

__all__ = ["build_parser", "main"]

_EPILOG = """examples:
  passl-visualize attention output/ViT_base_patch16_224 --input cat.jpg dog.jpg
  passl-visualize attention -c ViT_base_patch16_224 \\
      -o Global.pretrained_model=vit_b.pdparams --input cat.jpg
  passl-visualize schedule -c ViT_base_patch16_224 --steps-per-epoch 313
  passl-visualize filters output/ViT_base_patch16_224
  passl-visualize pos-embed output/ViT_base_patch16_224
  passl-visualize compare output/first output/second
  passl-visualize confusion output/ViT_base_patch16_224
  passl-visualize augment -c ViT_base_patch16_224 --out sheet.png

RUN is the folder of a run (its best weights are meant, else its latest) or a checkpoint in it.
"""

_Commands = Any  # argparse keeps its type of subparsers private


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(build_parser(), _act, argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "passl-visualize",
        "Draw attention, schedules, weights, curves, mistakes and augmentation.",
        _EPILOG,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_attention(commands)
    _add_schedule(commands)
    _add_filters(commands)
    _add_positions(commands)
    _add_compare(commands)
    _add_confusion(commands)
    add_preview(commands, "augment")
    examples_of_subcommands(parser)
    return parser


def _act(arguments: argparse.Namespace) -> int:
    from passl.visualize.figure import require_folder, require_matplotlib

    require_matplotlib()
    out = Path(arguments.out)
    require_folder(out.parent if arguments.command == "augment" else out)
    if arguments.command == "augment":  # passl-data preview, which says itself what it wrote
        return int(arguments.act(arguments))
    for path in arguments.act(arguments):
        print(f"wrote {path}")
    return EXIT_OK


def _command(
    commands: _Commands, name: str, help_text: str, description: str, *, with_run: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=description
    )
    if with_run:
        parser.add_argument("run", nargs="?", metavar="RUN", help="folder of a run or checkpoint")
        add_config_options(parser, required=False)
    parser.add_argument(
        "--out", default="visualize", metavar="DIR", help="folder of the pictures (%(default)s)"
    )
    return parser


# -- attention -------------------------------------------------------------------------------------


def _add_attention(commands: _Commands) -> None:
    parser = _command(
        commands,
        "attention",
        "where a model looks: rollout, layers, heads",
        "For each picture a sheet (rollout, likeliest classes, every layer, every head) and the "
        "picture at its own size under the rollout.",
    )
    parser.add_argument("--input", nargs="+", default=[], metavar="IMAGE", help="image files")
    parser.add_argument(
        "--sample", nargs="+", type=int, default=[], metavar="N",
        help="samples of DataLoader.Eval by number",
    )
    parser.add_argument(
        "--layer", default="last", metavar="all|N|last",
        help="after which layer, from 0, the rollout is laid over the picture (%(default)s)",
    )
    parser.add_argument(
        "--head-fusion", choices=["mean", "max", "min"], default="mean",
        help="what of the heads makes a layer's map (%(default)s)",
    )
    parser.add_argument(
        "--discard-ratio", type=float, default=0.0, metavar="R",
        help="leave out this part of each layer's attention, the lowest (%(default)s)",
    )
    parser.add_argument(
        "--style", choices=["multiply", "heat"], default="multiply",
        help="darken what is not looked at, or colour the map (%(default)s)",
    )
    parser.add_argument(
        "--llama", action="store_true", help="go through ViT-LLaMA's frozen block as well"
    )
    parser.add_argument("--raw", action="store_true", help="write all arrays as .npz too")
    parser.set_defaults(act=_attention)


def _attention(arguments: argparse.Namespace) -> list[Path]:
    if not arguments.input and not arguments.sample:
        raise ConfigError("say what to look at: --input IMAGE, or --sample N of DataLoader.Eval")
    if not 0.0 <= arguments.discard_ratio < 1.0:
        raise ConfigError(f"--discard-ratio {arguments.discard_ratio:g}: must be 0 to below 1")
    from passl.visualize import source
    from passl.visualize.inputs import read_pictures

    config, weights = source.find_config(arguments.run, arguments.config, arguments.override)
    transforms = source.eval_transforms(config)
    dataset = source.eval_dataset(config) if arguments.sample else None
    channels = int(config.Model.get("in_chans", 3))
    pictures = read_pictures(arguments.input, arguments.sample, dataset, channels)
    trained = source.trained_model(config, weights)
    for note in trained.notes:
        print(note)

    from passl.export.live import class_names
    from passl.visualize import attention_sheet as sheets

    names = class_names(config, dataset, learned=trained.classes)
    written: list[Path] = []
    for picture in pictures:
        maps = sheets.look(
            trained.layer,
            picture,
            transforms,
            head_fusion=arguments.head_fusion,
            discard_ratio=arguments.discard_ratio,
            with_llama=arguments.llama,
        )
        layers = _layers(arguments.layer, len(maps.layers))
        top = ", ".join(f"{name} {value:.1%}" for name, value in maps.top(names))
        print(f"{picture.source}: {top or 'no classes'}")
        written.append(
            sheets.draw_attention(
                maps,
                Path(arguments.out) / f"{picture.name}_attention.png",
                title=trained.title(),
                layer=layers[-1],
                names=names,
                note=_how(arguments),
            )
        )
        for layer in layers:
            suffix = _suffix(layer, len(maps.layers)) if arguments.layer == "all" else ""
            path = Path(arguments.out) / f"{picture.name}_rollout{suffix}.png"
            written.append(sheets.save_overlay(maps, layer, arguments.style, path))
        if arguments.raw:
            path = Path(arguments.out) / f"{picture.name}_attention.npz"
            written.append(sheets.save_arrays(maps, path))
    return written


def _layers(text: str, count: int) -> list[int]:
    if text == "all":
        return list(range(count))
    if text == "last":
        return [count - 1]
    if not text.isdecimal() or int(text) >= count:
        raise ConfigError(
            f"--layer {text}: must be all, last, or a number from 0 to {count - 1}: the model has "
            f"{count} layers"
        )
    return [int(text)]


def _suffix(layer: int, count: int) -> str:
    """Of a layer's file; with as many digits as it takes for names to stand in their order."""
    return f"_{layer:0{len(str(count - 1))}}"


def _how(arguments: argparse.Namespace) -> str:
    discarded = arguments.discard_ratio
    words = f"rollout over the {arguments.head_fusion} of the heads"
    words += f" without the lowest {discarded:.0%}" if discarded else ""
    return f"{words}; in colours dark is 0 and yellow the most"


# -- of weights ------------------------------------------------------------------------------------


def _add_filters(commands: _Commands) -> None:
    parser = _command(
        commands,
        "filters",
        "filters of the patch embedding",
        "The principal components of the first layer's filters, and the largest filters.",
    )
    parser.set_defaults(act=_filters)


def _filters(arguments: argparse.Namespace) -> list[Path]:
    trained = _trained(arguments)
    from passl.visualize.weights import draw_filters, first_filters

    name, filters = first_filters(trained.layer)
    path = Path(arguments.out) / f"{trained.name}_filters.png"
    return [draw_filters(name, filters, path, title=trained.title())]


def _add_positions(commands: _Commands) -> None:
    parser = _command(
        commands,
        "pos-embed",
        "similarity of the position embeddings",
        "For each position of a patch, the cosine similarity of its embedding to all others.",
    )
    parser.set_defaults(act=_positions)


def _positions(arguments: argparse.Namespace) -> list[Path]:
    trained = _trained(arguments)
    from passl.visualize.weights import draw_positions, position_similarity

    path = Path(arguments.out) / f"{trained.name}_pos_embed.png"
    return [draw_positions(position_similarity(trained.layer), path, title=trained.title())]


def _trained(arguments: argparse.Namespace) -> Any:
    from passl.visualize.source import find_config, trained_model

    trained = trained_model(
        *find_config(arguments.run, arguments.config, arguments.override)
    )
    for note in trained.notes:
        print(note)
    return trained


# -- of runs ---------------------------------------------------------------------------------------


def _add_schedule(commands: _Commands) -> None:
    parser = _command(
        commands,
        "schedule",
        "learning rate and all else that changes with the step",
        "Learning rate, soft mask, dropout, drop path and averaging over the run, as training "
        "would have them; nothing is trained. A picture, and the numbers as CSV.",
    )
    parser.add_argument(
        "--steps-per-epoch", type=int, metavar="N", help="in place of asking the training data"
    )
    parser.set_defaults(act=_schedule)


def _schedule(arguments: argparse.Namespace) -> list[Path]:
    if arguments.steps_per_epoch is not None and arguments.steps_per_epoch < 1:
        raise ConfigError(f"--steps-per-epoch {arguments.steps_per_epoch}: must be at least 1")
    from passl.visualize.schedule import draw_schedule, plan_schedule, save_schedule
    from passl.visualize.source import find_config

    config, _ = find_config(arguments.run, arguments.config, arguments.override, "train")
    schedule = plan_schedule(config, arguments.steps_per_epoch)
    name = config.Model["name"]
    path = Path(arguments.out) / f"{name}_schedule.png"
    return [
        draw_schedule(schedule, path, title=f"{name}\n{config.source_path}"),
        save_schedule(schedule, path.with_suffix(".csv")),
    ]


def _add_compare(commands: _Commands) -> None:
    parser = _command(
        commands,
        "compare",
        "curves of several runs",
        "Losses, accuracy and learning rate of several runs in one picture, and a table.",
        with_run=False,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder, or a metrics.jsonl")
    parser.add_argument(
        "--x", choices=["step", "epoch", "hours"], default="step",
        help="what runs to the right (%(default)s)",
    )
    parser.set_defaults(act=_compare)


def _compare(arguments: argparse.Namespace) -> list[Path]:
    from passl.visualize.compare import draw_comparison, read_runs, summary_rows

    runs = read_runs(arguments.runs)
    rows = summary_rows(runs)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths))
        ))
    return [draw_comparison(runs, Path(arguments.out) / "compare.png", axis=arguments.x)]


# -- of mistakes -----------------------------------------------------------------------------------


def _add_confusion(commands: _Commands) -> None:
    parser = _command(
        commands,
        "confusion",
        "which classes are taken for which, and the worst mistakes",
        "Evaluate on DataLoader.Eval; draw the confusion matrix (of more than 40 classes: the most "
        "frequent confusions) and the surest mistakes, and write both as CSV.",
    )
    parser.add_argument(
        "--mistakes", type=int, default=24, metavar="N", help="pictures of mistakes (%(default)s)"
    )
    parser.set_defaults(act=_confusion)


def _confusion(arguments: argparse.Namespace) -> list[Path]:
    if arguments.mistakes < 1:
        raise ConfigError(f"--mistakes {arguments.mistakes}: must be at least 1")
    from passl.visualize import source

    config, weights = source.find_config(
        arguments.run, arguments.config, arguments.override, "eval"
    )
    loader = source.eval_loader(config)
    trained = source.trained_model(config, weights)

    from passl.engine.class_agreement import compare_classes
    from passl.export.live import class_names
    from passl.visualize.confusion import confuse, save_confusions, save_mistakes
    from passl.visualize.confusion_sheet import draw_confusion, draw_mistakes

    warning = compare_classes(config, loader.dataset, trained.classes)
    if warning is not None:
        print(warning)
    names = class_names(config, loader.dataset, learned=trained.classes)
    confusion = confuse(trained.layer, loader)
    print(f"top1 {confusion.accuracy:.5f} of {confusion.samples} samples")
    out, title = Path(arguments.out) / trained.name, trained.title()
    return [
        draw_confusion(confusion, names, Path(f"{out}_confusion.png"), title=title),
        save_confusions(confusion, names, Path(f"{out}_confusion.csv")),
        draw_mistakes(
            confusion, loader.dataset, names, Path(f"{out}_mistakes.png"), title=title,
            most=arguments.mistakes,
        ),
        save_mistakes(confusion, names, loader.dataset, Path(f"{out}_mistakes.csv")),
    ]


if __name__ == "__main__":
    sys.exit(main())
