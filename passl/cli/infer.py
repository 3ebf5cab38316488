"""``passl-infer``: the likeliest classes of pictures."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, TextIO, Union

from passl.cli.common import config_parser, run_command
from passl.config import load_config
from passl.errors import EXIT_FAILED, EXIT_OK, ConfigError, PasslError

if TYPE_CHECKING:
    from passl.export.pictures import Picture
    from passl.export.predictor import Failure, Prediction, Predictor

__all__ = ["build_parser", "main"]

_EPILOG = """examples:
  passl-infer cat.jpg photos/ 'more/*.png' --model output/ViT_base_patch16_224
  passl-infer photos/ --model exported/ --format csv --out guesses.csv --sheet guesses.png
  find . -name '*.jpg' | passl-infer - --model exported/ --format json
  passl-infer clip.mp4 --every 25 -c CONFIG -o Global.pretrained_model=weights.pdparams

MODEL is an exported folder, a run's folder or a checkpoint; -c and -o name config and weights.
exit status: 0 every picture was classified; 1 some could not be used (the others are in the
output, these are on the standard error), or the command failed; 2 a mistake in the options or the
config; 130 interrupted, with what was done so far in the output
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(build_parser(), _infer, argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = config_parser(
        "passl-infer", "Name the likeliest classes of pictures.", _EPILOG, required=False
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="image, video, folder, pattern in quotes, or - for a list of paths on stdin",
    )
    add("--model", metavar="MODEL", help="exported folder, run's folder or checkpoint")
    add("--backend", choices=("onnx", "paddle"), help="which format of an exported folder to run")
    add("--topk", type=_positive, default=5, metavar="K", help="classes a picture (default 5)")
    add("--format", choices=tuple(_WRITERS), default="table", help="of the output (json: lines)")
    add("--out", metavar="FILE", help="where the output goes (default: standard output)")
    add("--sheet", metavar="FILE", help="draw a contact sheet: .png, .jpg or .webp")
    add("--labels", metavar="FILE", help="class names, one a line")
    add("--batch-size", type=_positive, default=32, metavar="N", help="pictures at a time")
    add("--workers", type=int, default=None, metavar="N", help="threads that read pictures")
    add("--every", type=_positive, default=1, metavar="N", help="one frame of N of a video")
    add("--device", choices=("cpu", "gpu"), default="cpu", help="where the model runs")
    return parser


def _infer(arguments: argparse.Namespace) -> int:
    # "-o KEY=VALUE ..." takes all that follows: what is no KEY=VALUE there was meant as a picture.
    overrides = [text for text in arguments.override if "=" in text or text.startswith("~")]
    inputs = [*arguments.inputs, *(text for text in arguments.override if text not in overrides)]
    if arguments.print_config:
        if arguments.config is None:
            raise ConfigError("--print-config needs -c CONFIG")
        print(load_config(arguments.config, overrides).to_yaml(origins=True), end="")
        return EXIT_OK
    if not inputs:
        raise ConfigError("no pictures: name files, folders or patterns, or - for a list on stdin")
    from passl.export.pictures import expand
    from passl.export.sheet import check_sheet

    if arguments.sheet is not None:
        check_sheet(Path(arguments.sheet))
    paths = expand(inputs, _listed() if "-" in inputs else None)
    predictor = _predictor(arguments, overrides)
    for note in predictor.facts.notes:
        print(f"passl-infer: {note}", file=sys.stderr)
    with _full_disk_is_a_sentence(arguments.out), _output(arguments.out) as stream:
        failed = _classify(predictor, paths, arguments, stream)
    return EXIT_FAILED if failed else EXIT_OK


def _listed() -> Iterator[str]:
    """Lines of the standard input; a name need not be UTF-8, as no file's name need be."""
    stdin = sys.stdin
    if isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(errors="surrogateescape")
    yield from stdin


def _predictor(arguments: argparse.Namespace, overrides: Sequence[str]) -> Predictor:
    from passl.export.loading import load_config_model, load_model
    from passl.export.predictor import default_workers

    settings: dict[str, Any] = {
        "device": arguments.device,
        "labels": arguments.labels,
        "batch_size": arguments.batch_size,
        "num_workers": default_workers() if arguments.workers is None else arguments.workers,
    }
    if (arguments.model is None) == (arguments.config is None):
        raise ConfigError(
            "name the model, in one of two ways: --model FOLDER (exported, or of a run), or "
            "-c CONFIG -o Global.pretrained_model=PATH"
        )
    if arguments.model is not None:
        if overrides:
            raise ConfigError("-o goes with -c; the folder after --model has a config of its own")
        return load_model(arguments.model, backend=arguments.backend, **settings)
    if arguments.backend is not None:
        raise ConfigError("--backend goes with --model FOLDER, an exported one")
    return load_config_model(load_config(arguments.config, overrides), **settings)


def _classify(
    predictor: Predictor, paths: Sequence[str], arguments: argparse.Namespace, stream: TextIO
) -> int:
    """Write a result a picture; returns how many could not be used."""
    from passl.export.predictor import Failure
    from passl.export.sheet import MAX_PICTURES, THUMBNAIL_PX
    from passl.logs.progress import CountProgress

    write = _WRITERS[arguments.format](stream)
    kept: list[Prediction] = []
    done, failed = 0, 0
    shows_itself = arguments.out is None and sys.stdout.isatty()
    progress = contextlib.nullcontext() if shows_itself else CountProgress("pictures")
    thumbnail_px = THUMBNAIL_PX if arguments.sheet is not None else None
    pictures = _opened(paths, arguments.every)
    try:
        with progress as tell:
            for result in predictor.stream(pictures, arguments.topk, thumbnail_px=thumbnail_px):
                write(result)
                done += 1
                if isinstance(result, Failure):
                    failed += 1
                    print(f"passl-infer: skipped {result.reason}", file=sys.stderr)
                elif arguments.sheet is not None and len(kept) < MAX_PICTURES:
                    kept.append(result)  # the others' thumbnails would fill the memory
                if tell is not None:
                    tell(done, max(done, len(paths)))
    finally:
        stream.flush()
    if kept:
        _sheet(Path(arguments.sheet), kept, done - failed)
    if failed:
        print(f"passl-infer: {failed} of {done} pictures could not be used", file=sys.stderr)
    return failed


def _opened(paths: Sequence[str], every: int) -> Iterator[Picture]:
    """The pictures of one path after the other, as the predictor asks for them."""
    from passl.export.pictures import pictures_of

    for path in paths:
        yield from pictures_of(path, every)


def _sheet(path: Path, kept: Sequence[Prediction], classified: int) -> None:
    from passl.checkpoint.disk import os_errors_become_sentences
    from passl.export.sheet import write_sheet

    with os_errors_become_sentences("write the sheet", path):
        write_sheet(path, kept)
    if classified > len(kept):
        print(
            f"passl-infer: {path} shows the first {len(kept)} of {classified} pictures",
            file=sys.stderr,
        )


# -- output ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _full_disk_is_a_sentence(path: Optional[str]) -> Iterator[None]:
    """What the operating system refuses while results are written, for the person who waits."""
    try:
        yield
    except BrokenPipeError:  # the reader has had enough
        raise
    except OSError as error:
        where = "the standard output" if path is None else f"--out {path}"
        raise PasslError(f"{where}: cannot be written further ({error.strerror})") from error


@contextlib.contextmanager
def _output(path: Optional[str]) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        # Names of files leave as the bytes they are.
        file = open(path, "w", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written ({error.strerror})") from error
    with file:
        yield file


class _Table:
    """``path: name 97.2%, name 1.3%``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, result: Union[Prediction, Failure]) -> None:
        guesses = getattr(result, "top", None)
        if guesses is not None:
            text = ", ".join(f"{g.name} {100 * g.probability:.1f}%" for g in guesses)
            print(f"{result.source}: {text}", file=self._stream)


_SURROGATE = re.compile("[\ud800-\udfff]")


class _JsonLines:
    r"""One object a line; a picture that cannot be used has ``error`` in place of ``top``.

    A byte of a name that is no UTF-8 is ``\udcXX``, which JSON has and Python's ``os.fsencode``
    makes that byte of again; so is every other letter that the stream cannot write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        encoding = getattr(stream, "encoding", None) or "utf-8"
        self._is_utf8 = codecs.lookup(encoding).name == "utf-8"

    def __call__(self, result: Union[Prediction, Failure]) -> None:
        guesses = getattr(result, "top", None)
        rest = (
            {"error": getattr(result, "reason", "")}
            if guesses is None
            else {"top": [vars(guess) for guess in guesses]}
        )
        line = json.dumps({"source": result.source, **rest}, ensure_ascii=not self._is_utf8)
        print(_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", line), file=self._stream)


class _Csv:
    """One row a picture and class; a picture that cannot be used has no row."""

    def __init__(self, stream: TextIO) -> None:
        self._rows = csv.writer(stream, lineterminator="\n")
        self._rows.writerow(["source", "rank", "label", "name", "probability"])

    def __call__(self, result: Union[Prediction, Failure]) -> None:
        for rank, guess in enumerate(getattr(result, "top", ()), start=1):
            row = [result.source, rank, guess.label, guess.name, f"{guess.probability:.6g}"]
            self._rows.writerow(row)


_WRITERS: dict[str, Any] = {"table": _Table, "json": _JsonLines, "csv": _Csv}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
