"""``passl-export``: a trained model in Paddle's inference format or ONNX, proven equal."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from passl.checkpoint.disk import human_size
from passl.cli.common import config_parser, run_command
from passl.config import load_config
from passl.errors import EXIT_OK

__all__ = ["build_parser", "main"]

_EPILOG = """examples:
  passl-export -c quickstart/ViT_micro_digits --format both
  passl-export -c CONFIG -o Global.pretrained_model=output/X/best --softmax --out served

Without Global.pretrained_model the best checkpoint of the run's own folder is exported. Every
option is also a key of the config's section Export (docs/deploy.md).
exit status: 0 exported; 1 failed, or the files differ from the live model and were removed;
2 a mistake in the config or the options
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(build_parser(), _export, argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = config_parser(
        "passl-export", "Export a trained model, compared with the live one.", _EPILOG
    )
    add = parser.add_argument
    add("--format", choices=("paddle", "onnx", "both"), help="Export.export_type")
    dtypes = ("float32", "float16", "int8")
    add("--dtype", choices=dtypes, help="of the stored weights: Export.dtype")
    add("--opset", type=int, metavar="N", help="of ONNX's operators: Export.opset")
    add("--softmax", action="store_true", help="end in probabilities: Export.softmax")
    add(
        "--preprocess",
        action="store_true",
        help="take uint8 [batch, height, width, channels] and normalise inside: Export.preprocess",
    )
    add("--labels", metavar="FILE", help="class names, one a line: Export.labels")
    add("--simplify", action="store_true", help="simplify the ONNX graph: Export.simplify")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--batch", type=int, metavar="N", help="images of an input, fixed")
    size.add_argument("--dynamic-batch", action="store_true", help="any number of images (default)")
    add("--image", nargs="+", default=[], metavar="FILE", help="photos to compare on")
    add("--out", metavar="DIR", help="default: output_dir/<Model.name>/export")
    return parser


def _export(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, [*arguments.override, *_as_overrides(arguments)])
    if arguments.print_config:
        print(config.to_yaml(origins=True), end="")
        return EXIT_OK
    from passl.export.exporter import export_model

    out = Path(arguments.out) if arguments.out is not None else None
    result = export_model(config, out, arguments.image, lambda text: print(text, flush=True))
    for name, size in result.sizes.items():
        print(f"  {result.folder / name}  {human_size(size)}")
    return EXIT_OK


def _as_overrides(arguments: argparse.Namespace) -> list[str]:
    """The options as texts for ``-o``, so that one check and one message serve both."""
    keys = {
        "export_type": arguments.format,
        "dtype": arguments.dtype,
        "opset": arguments.opset,
        "softmax": arguments.softmax or None,
        "preprocess": arguments.preprocess or None,
        "labels": arguments.labels,
        "simplify": arguments.simplify or None,
        "batch_size": "free" if arguments.dynamic_batch else arguments.batch,
    }
    return [
        f"Export.{key}={json.dumps(value)}" for key, value in keys.items() if value is not None
    ]
