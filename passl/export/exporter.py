"""``passl-export``: a trained model written, compared with the live one, and only then kept."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from passl.checkpoint.disk import (
    human_size,
    os_errors_become_sentences,
    remove_tree,
    sync_folder,
)
from passl.config import Config
from passl.engine.build import run_dir_of
from passl.errors import ConfigError, PasslError
from passl.export.card import CARD_NAME, ModelCard, described_files
from passl.export.compare import Comparison, Samples, compare, gather_samples
from passl.export.formats import FORMATS, INPUT_NAME, WriteJob, check_tools
from passl.export.int8 import SimulatedInt8, int8_in_words, int8_tolerance, simulate
from passl.export.int8_check import follow
from passl.export.live import LiveModel, build_dataset, class_names, live_model
from passl.export.plan import TOLERANCES, ExportPlan, plan_export
from passl.export.preprocess import Preprocessor, eval_steps
from passl.export.sessions import open_session

__all__ = ["ExportResult", "export_model"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportResult:
    """What was exported.

    Attributes:
        folder: where it is.
        card: its description.
        comparisons: format -> how far it is from the live model.
        seconds: format -> time of writing it.
        sizes: file name -> bytes.
    """

    folder: Path
    card: ModelCard
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def export_model(
    config: Config,
    out: Optional[Path] = None,
    photos: Sequence[str] = (),
    say: Optional[Say] = None,
) -> ExportResult:
    """Export the trained model of ``config`` as its ``Export`` section says.

    The files are written into a folder beside ``out``, compared with the live model on batches of
    one and three pictures, and moved into place; if they differ, or anything fails, nothing stays.

    Args:
        config: checked; its weights are chosen as for ``passl-eval``.
        out: the folder; default ``export`` in the run's folder. An earlier export is replaced.
        photos: image files to compare on, in place of the data set's.
        say: told what happens, a sentence at a time.

    Raises:
        ConfigError: ``Export`` does not go with the model, or ``out`` cannot be written.
        CheckpointError: there are no weights, or they do not fit.
        PasslError: a tool is missing or failed, or an export differs from the live model.
    """
    say = say or _silent
    out = out or run_dir_of(config) / "export"
    plan = plan_export(config)
    _check_free(out)
    live = live_model(config)
    check_tools(plan)
    say(live.report)
    dataset = build_dataset(config)
    steps = eval_steps(config)
    preprocessor = _preprocessor(steps, plan)
    samples = gather_samples(config, plan, preprocessor, dataset, photos)
    say(f"compared on {samples.origin}")

    from passl.export.graph import ExportGraph, settle_layers, store_in_half
    from passl.export.sessions import LiveSession

    int8 = simulate(config, live) if plan.dtype == "int8" else None
    live_outputs = [LiveSession(live.layer).run(batch) for batch in samples.model]
    exact: list[np.ndarray] = []
    if int8 is not None:
        exact = int8.as_it_was(samples.model)
        say(int8_in_words(int8, exact, live_outputs))
        int8.leave()
        if config.Export is None or config.Export.tolerance is None:
            plan = replace(plan, tolerance=int8_tolerance(plan, exact, live_outputs))
    wanted = [_softmax(batch) if plan.softmax else batch for batch in live_outputs]
    normalize = preprocessor.normalize if preprocessor is not None else None
    graph = ExportGraph(live.layer, normalize, plan.channels, plan.softmax)
    graph.eval()
    settle_layers(graph)
    labels = class_names(config, dataset, learned=live.classes)
    card = _card(config, plan, live, preprocessor, labels, samples, wanted, int8)
    with _beside(out) as (folder, scratch):
        result = ExportResult(out, card)
        job = WriteJob(graph, plan, folder, scratch, int8.layers() if int8 is not None else ())
        if int8 is not None:  # first the graph as it is before its numbers are rounded
            _check_before_int8(job, card, samples, exact, say)
        # ONNX's own tool rounds its weights; Paddle's graph has them rounded before it is written.
        for kind in sorted(plan.formats):
            if kind == "paddle" and plan.dtype == "float16":
                store_in_half(graph)
            _write_and_compare(kind, job, result, samples, wanted, say)
        if int8 is not None:
            _check_layers(job, card, samples, int8, say)
        card.write(folder)
        result.sizes.update({path.name: path.stat().st_size for path in sorted(folder.iterdir())})
        _put_in_place(folder, out)
    return result


def _write_and_compare(
    kind: str,
    job: WriteJob,
    result: ExportResult,
    samples: Samples,
    wanted: Sequence[np.ndarray],
    say: Say,
) -> None:
    """One format.

    Raises:
        PasslError: it differs from the live model.
    """
    started = time.perf_counter()
    names = FORMATS[kind](job)
    result.seconds[kind] = time.perf_counter() - started
    card, plan = result.card, job.plan
    card.files[kind] = described_files(job.folder, names)
    session = open_session(job.folder, card, kind)
    found = compare(session, samples, wanted)
    result.comparisons[kind] = found
    card.compared[kind] = {
        "backend": session.backend,
        "largest_difference": found.difference,
        "same_class": f"{found.same_class} of {found.pictures}",
    }
    what = "live model in simulated int8" if plan.dtype == "int8" else "live model"
    text = (
        f"{kind}: largest difference to the {what} {found.difference:.2g} (relative "
        f"{found.relative:.2g}, at most {plan.tolerance:.3g} is accepted) on batches of "
        f"{_listed([str(len(batch)) for batch in samples.graph])}; the same class for "
        f"{found.same_class} of {found.pictures} pictures; {session.backend}"
    )
    if not found.relative <= plan.tolerance:
        raise PasslError(
            f"{text}. It computes something else than the model, so nothing was exported"
            + (
                "; weights in float16 may be too coarse for this model: use --dtype float32, or "
                "accept more with -o Export.tolerance=NUMBER"
                if plan.dtype == "float16"
                else "; -o Export.tolerance=NUMBER accepts more"
            )
        )
    say(text)


def _listed(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _preprocessor(
    steps: Optional[list[dict[str, Any]]], plan: ExportPlan
) -> Optional[Preprocessor]:
    if steps is None:
        if plan.preprocess:
            raise ConfigError(
                "Export.preprocess: there is no DataLoader.Eval, whose transforms say what the "
                "normalisation is"
            )
        return None
    return Preprocessor(steps, plan.channels, inside=plan.preprocess)


def _card(
    config: Config,
    plan: ExportPlan,
    live: LiveModel,
    preprocessor: Optional[Preprocessor],
    labels: Optional[list[str]],
    samples: Samples,
    wanted: Sequence[np.ndarray],
    int8: Optional[SimulatedInt8],
) -> ModelCard:
    from passl.engine.run_record import versions

    return ModelCard(
        model={"name": config.Model["name"]},
        input={
            "name": INPUT_NAME,
            "dtype": plan.graph_dtype,
            "layout": "NHWC" if plan.preprocess else "NCHW",
            "shape": list(plan.graph_shape),
        },
        output={
            "meaning": plan.meaning,
            "shape": [plan.batch_size, *wanted[0].shape[1:]],
        },
        preprocess=preprocessor.outside if preprocessor is not None else None,
        inside=preprocessor.within if preprocessor is not None else [],
        labels=labels,
        files={},
        weights={
            "dtype": plan.dtype,
            "source": str(live.weights),
            "sha256": live.sha256,
            **({"ranges": int8.origin} if int8 is not None else {}),
        },
        compared={"images": samples.origin, "tolerance": plan.tolerance},
        versions=versions(),
    )


def _check_before_int8(
    job: WriteJob,
    card: ModelCard,
    samples: Samples,
    exact: Sequence[np.ndarray],
    say: Say,
) -> None:
    """Compare the graph in float32 with the live model without rounding.

    Raises:
        PasslError: they differ.
    """
    folder = job.scratch / "float32"
    folder.mkdir()
    plan = replace(job.plan, dtype="float32", tolerance=TOLERANCES["float32"])
    result = ExportResult(folder, replace(card, files={}, compared={}))
    wanted = [_softmax(batch) if plan.softmax else batch for batch in exact]
    before = replace(job, plan=plan, folder=folder, int8_layers=())
    _write_and_compare("onnx", before, result, samples, wanted, _silent)
    found = result.comparisons["onnx"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    say(
        f"onnx in float32, before its weights are rounded: largest difference to the live model "
        f"{found.difference:.2g} (relative {found.relative:.2g}); {human_size(size)}"
    )


def _check_layers(
    job: WriteJob, card: ModelCard, samples: Samples, int8: SimulatedInt8, say: Say
) -> None:
    """Compare an int8 export with the live model layer by layer.

    Raises:
        PasslError: a layer rounds on another grid, or multiplies with other weights.
    """
    ends = _softmax if job.plan.softmax else np.asarray
    found = follow(card.file(job.folder, "onnx", "model"), job.scratch, int8, samples, ends)
    found.check(TOLERANCES["float32"])
    card.compared["onnx"].update(farthest_step=found.steps, following_roundings=found.relative)
    say(
        f"onnx, layer by layer: all {found.layers} round the live model's numbers (the farthest by "
        f"{found.steps:.3f} of a step, in {found.worst}); where the live model follows these "
        f"roundings, outputs differ by {found.relative:.2g} relative"
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of the last axis, in float64."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def _silent(_: str) -> None:
    """Say nothing."""


# -- the folder --------------------------------------------------------------------------------


def _check_free(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier export, or cannot be written."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / CARD_NAME).is_file():
        raise ConfigError(
            f"{out}: holds something that is no export (it has no {CARD_NAME}); name another "
            "folder with --out"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ConfigError(
            f"{out}: cannot be written there ({error.strerror}); name another folder with --out"
        ) from error


@contextmanager
def _beside(out: Path) -> Iterator[tuple[Path, Path]]:
    """Two hidden folders beside ``out``: for the files, and for scratch; removed after."""
    folders = [out.with_name(f".{out.name}.{kind}-{os.getpid()}") for kind in ("tmp", "scratch")]
    try:
        for folder in folders:
            remove_tree(folder)
            with os_errors_become_sentences("write", folder):
                folder.mkdir()
        yield folders[0], folders[1]
    finally:
        for folder in folders:
            remove_tree(folder)


def _put_in_place(folder: Path, out: Path) -> None:
    """Rename ``folder`` to ``out``; an earlier export goes away after the new one is there."""
    old = out.with_name(f".{out.name}.old-{os.getpid()}")
    with os_errors_become_sentences("write", out):
        for path in folder.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        sync_folder(folder)
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(folder, out)
        except OSError:
            with suppress(OSError):
                os.replace(old, out)
            raise
        sync_folder(out.parent)
    remove_tree(old)
