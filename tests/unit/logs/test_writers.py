"""What the writers hand over, read back with the readers of the programs that show it."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from passl.logs.curves import Curves
from passl.logs.metrics import MetricsWriter
from passl.logs.writers.base import Graph, Node, Point
from passl.logs.writers.tensorboard import TensorBoard
from passl.logs.writers.visualdl import VisualDL
from passl.logs.writers.wandb import WandB

GRAPH = Graph(
    "Net",
    [
        Node("patch_embed/proj", "Conv2D", 20, (-1, 4, 2, 2), ""),
        Node("blocks/0/attn/qkv", "Linear", 60, (-1, 5, 12), "patch_embed/proj"),
        Node("blocks/0/mlp/fc1", "Linear", 40, (-1, 5, 8), "blocks/0/attn/qkv"),
        Node("head", "Linear", 50, (-1, 10), "blocks/0/mlp/fc1"),
    ],
    (-1, 1, 8, 8),
)
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def train(step, **values):
    return {"kind": "train", "step": step, "epoch": 1, **values}


def write_everything(metrics):
    """Two steps with a picture, a histogram and an evaluation each."""
    for step in (10, 20):
        metrics.append(train(step, loss=step / 10))
        metrics.append({"kind": "eval", "step": step, "epoch": 1, "top1": step / 100})
        metrics.curves.image("eval/worst_mistakes", PIXELS, step)
        metrics.curves.histogram("weights/head", np.array([0.0, 1.0, np.nan, 3.0]), step)


def visualdl_reader(run_dir):
    from visualdl import LogReader

    return LogReader(file_path=str(run_dir / "vdl/vdlrecords.passl.log"))


def steps_of(run_dir, component, tag):
    return [record.id for record in visualdl_reader(run_dir).get_data(component, tag)]


# -- VisualDL ------------------------------------------------------------------------------------


def test_visualdl_reads_the_picture_pixel_for_pixel(tmp_path):
    metrics = MetricsWriter(tmp_path, [VisualDL(run_dir=tmp_path)])
    write_everything(metrics)
    metrics.close()
    first, _ = visualdl_reader(tmp_path).get_data("image", "eval/worst_mistakes")
    found = np.asarray(Image.open(io.BytesIO(first.image.encoded_image_string)))
    np.testing.assert_array_equal(found, PIXELS)


def test_visualdl_reads_the_histogram_without_what_is_not_finite(tmp_path):
    metrics = MetricsWriter(tmp_path, [VisualDL(run_dir=tmp_path)])
    write_everything(metrics)
    metrics.curves.histogram("weights/all_bad", np.array([np.nan, np.inf]), 20)
    metrics.close()
    reader = visualdl_reader(tmp_path)
    record = reader.get_data("histogram", "weights/head")[0].histogram
    assert sum(record.hist) == 3
    assert (record.bin_edges[0], record.bin_edges[-1]) == (0.0, 3.0)
    assert reader.get_tags()["histogram"] == ["weights/head"]


def test_visualdl_reads_settings_and_the_names_of_the_results(tmp_path):
    writer = VisualDL(run_dir=tmp_path)
    settings = {"Model": "ViT", "Global/epochs": 300, "lr": 0.5, "Optimizer/amsgrad": True}
    writer.settings(settings, ["eval/top1"])
    writer.close()
    (record,) = visualdl_reader(tmp_path).get_data("hyper_parameters", "hparam")
    found = {
        info.name: getattr(info, info.WhichOneof("type")) for info in record.hparam.hparamInfos
    }
    expected = {"Model": "ViT", "Global/epochs": 300.0, "lr": 0.5, "Optimizer/amsgrad": "true"}
    assert found == expected
    assert [info.name for info in record.hparam.metricInfos] == ["eval/top1"]


def test_visualdl_draws_the_graph_and_can_fold_and_unfold_it(tmp_path):
    from visualdl.reader.graph_reader import GraphReader

    VisualDL(run_dir=tmp_path).graph(GRAPH)
    reader = GraphReader(str(tmp_path))
    (run,) = reader.runs()
    folded = reader.get_graph(run, refresh=True)
    assert [node["name"] for node in folded["nodes"]] == [
        "/image", "/patch_embed", "/blocks", "/head",
    ]
    unfolded = reader.get_graph(run, expand_all=True, refresh=True)
    leaves = {node["name"] for node in unfolded["nodes"] if node["is_leaf"]}
    assert leaves == {"/image", *(f"/{node.path}" for node in GRAPH.nodes)}


def test_visualdl_keeps_what_came_before_the_checkpoint_and_forgets_the_rest(tmp_path):
    write_everything(MetricsWriter(tmp_path, [VisualDL(run_dir=tmp_path)]))  # and is killed
    for _ in range(2):  # a resume that is killed at once changes nothing
        again = MetricsWriter(tmp_path, [VisualDL(run_dir=tmp_path)])
        again.truncate_after(15)
        again.close()
        for component, tag in (
            ("scalar", "train/loss"), ("scalar", "eval/top1"), ("image", "eval/worst_mistakes"),
            ("histogram", "weights/head"),
        ):
            assert steps_of(tmp_path, component, tag) == [10], tag


def test_an_evaluation_that_is_made_again_shows_its_mistakes_once(tmp_path):
    metrics = MetricsWriter(tmp_path, [VisualDL(run_dir=tmp_path)])
    write_everything(metrics)
    metrics.close()
    again = MetricsWriter(tmp_path, [VisualDL(run_dir=tmp_path)])
    again.truncate_after(20, without=("eval",))
    again.curves.image("eval/worst_mistakes", PIXELS, 20)
    again.close()
    assert steps_of(tmp_path, "image", "eval/worst_mistakes") == [10, 20]
    assert steps_of(tmp_path, "histogram", "weights/head") == [10, 20]
    assert steps_of(tmp_path, "scalar", "eval/top1") == [10]


@pytest.mark.parametrize("torn", [b"\x05", struct.pack("<Q", 900) + b"half", b"\xff" * 40])
def test_a_torn_end_of_visualdls_file_is_cut_off_at_the_next_start(tmp_path, torn):
    metrics = MetricsWriter(tmp_path, [VisualDL(run_dir=tmp_path)])
    write_everything(metrics)
    metrics.close()
    with open(tmp_path / "vdl/vdlrecords.passl.log", "ab") as file:
        file.write(torn)
    again = MetricsWriter(tmp_path, [VisualDL(run_dir=tmp_path)])
    again.truncate_after(20)
    again.append(train(30, loss=3.0))
    again.close()
    assert steps_of(tmp_path, "scalar", "train/loss") == [10, 20, 30]
    assert steps_of(tmp_path, "image", "eval/worst_mistakes") == [10, 20]


def test_a_run_that_starts_over_shows_nothing_of_the_former(tmp_path):
    metrics = MetricsWriter(tmp_path, [VisualDL(run_dir=tmp_path)])
    write_everything(metrics)
    metrics.curves.graph(GRAPH)
    metrics.close()
    metrics = MetricsWriter(tmp_path, [VisualDL(run_dir=tmp_path)])
    metrics.start_over()
    metrics.append(train(1, loss=9.0))
    metrics.close()
    assert steps_of(tmp_path, "scalar", "train/loss") == [1]
    assert set(visualdl_reader(tmp_path).get_tags()) <= {"scalar", "meta_data"}
    assert [path.name for path in (tmp_path / "vdl").iterdir()] == ["vdlrecords.passl.log"]


# -- TensorBoard ---------------------------------------------------------------------------------


def accumulated(run_dir):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is not installed: pip install tensorboardX tensorboard",
    )
    everything = dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0)
    return accumulator.EventAccumulator(str(run_dir / "tensorboard"), everything).Reload()


@pytest.fixture
def _tensorboard():
    pytest.importorskip(
        "tensorboardX", reason="tensorboardX is not installed: pip install tensorboardX tensorboard"
    )


@pytest.mark.usefixtures("_tensorboard")
def test_tensorboard_reads_curves_pictures_histograms_settings_and_graph(tmp_path):
    metrics = MetricsWriter(tmp_path, [TensorBoard(run_dir=tmp_path)])
    metrics.curves.settings({"Model": "ViT", "lr": 0.5, "on": True}, ["eval/top1"])
    metrics.curves.graph(GRAPH)
    write_everything(metrics)
    metrics.curves.finish({"eval/top1": 0.2})
    metrics.close()
    found = accumulated(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(10, 1.0), (20, 2.0)]
    assert [event.step for event in found.Histograms("weights/head")] == [10, 20]
    assert found.Histograms("weights/head")[0].histogram_value.num == 3
    picture = found.Images("eval/worst_mistakes")[0].encoded_image_string
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(picture))), PIXELS)
    nodes = {node.name: list(node.input) for node in found.Graph().node}
    assert nodes["head"] == ["blocks/0/mlp/fc1"]
    assert len(nodes) == len(GRAPH.nodes) + 1
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    start = HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["Model"].string_value == "ViT"
    assert start.hparams["lr"].number_value == 0.5
    found.SummaryMetadata("_hparams_/session_end_info")  # KeyError: the run never came to its end


@pytest.mark.usefixtures("_tensorboard")
def test_tensorboard_keeps_what_came_before_the_checkpoint_and_forgets_the_rest(tmp_path):
    metrics = MetricsWriter(tmp_path, [TensorBoard(run_dir=tmp_path)])
    write_everything(metrics)
    metrics.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    with open(file, "ab") as stream:
        stream.write(b"\x10torn by a kill")
    again = MetricsWriter(tmp_path, [TensorBoard(run_dir=tmp_path)])
    again.truncate_after(15)
    again.append(train(20, loss=7.0))
    again.close()
    found = accumulated(tmp_path)
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(10, 1.0), (20, 7.0)]
    assert [event.step for event in found.Images("eval/worst_mistakes")] == [10]
    assert [event.step for event in found.Histograms("weights/head")] == [10]


# -- Weights & Biases, as a double that keeps what it is given -----------------------------------


class FakeRun:
    def __init__(self, arguments):
        self.arguments, self.rows, self.config, self.summary = arguments, [], Updates(), Updates()
        self.url, self.is_finished = "https://example.invalid/run", False

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, row):
        self.rows.append(row)

    def finish(self):
        self.is_finished = True


class Updates(dict):
    def update(self, values, allow_val_change=True):
        assert allow_val_change
        super().update(values)


@pytest.fixture
def wandb_runs(monkeypatch):
    runs = []

    def init(**arguments):
        folder = f"{arguments['dir']}/wandb/offline-run-{len(runs)}-{arguments['id']}"
        if arguments["mode"] == "offline":
            import pathlib

            pathlib.Path(folder).mkdir(parents=True)
        runs.append(FakeRun(arguments))
        return runs[-1]

    double = types.ModuleType("wandb")
    double.init = init
    double.Settings = lambda **settings: settings
    double.Image = lambda pixels: ("image", pixels.shape)
    double.Histogram = lambda np_histogram: ("histogram", int(np_histogram[0].sum()))
    monkeypatch.setitem(sys.modules, "wandb", double)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return runs


def test_wandb_is_offline_unless_asked_and_gets_one_row_a_record(tmp_path, wandb_runs):
    metrics = MetricsWriter(tmp_path, [WandB(run_dir=tmp_path, project="p")])
    metrics.start_over()
    metrics.curves.settings({"lr": 0.5}, [])
    write_everything(metrics)
    metrics.curves.finish({"eval/top1": 0.2})
    metrics.close()
    (run,) = wandb_runs
    assert (run.arguments["mode"], run.arguments["project"]) == ("offline", "p")
    assert run.rows[:4] == [
        {"train/loss": 1.0, "step": 10},
        {"eval/top1": 0.1, "step": 10},
        {"eval/worst_mistakes": ("image", (4, 6, 3)), "step": 10},
        {"weights/head": ("histogram", 3), "step": 10},
    ]
    assert (run.config, run.summary, run.is_finished) == ({"lr": 0.5}, {"eval/top1": 0.2}, True)


def test_a_resumed_wandb_run_has_its_name_and_every_figure_once(tmp_path, wandb_runs):
    metrics = MetricsWriter(tmp_path, [WandB(run_dir=tmp_path)])
    metrics.start_over()
    write_everything(metrics)
    metrics.close()
    again = MetricsWriter(tmp_path, [WandB(run_dir=tmp_path)])
    again.truncate_after(15)
    again.append(train(20, loss=7.0))
    again.close()
    first, second = wandb_runs
    assert first.arguments["id"] == second.arguments["id"]
    assert second.rows == [
        {"train/loss": 1.0, "step": 10},
        {"eval/top1": 0.1, "step": 10},
        {"train/loss": 7.0, "step": 20},
    ]
    left = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert left == [f"offline-run-1-{second.arguments['id']}"]


def test_wandb_goes_online_when_the_key_or_the_environment_says_so(
    tmp_path, wandb_runs, monkeypatch
):
    WandB(run_dir=tmp_path, mode="online").scalars([Point("train/loss", 1.0, 1, 0.0)])
    monkeypatch.setenv("WANDB_MODE", "online")
    WandB(run_dir=tmp_path).scalars([Point("train/loss", 1.0, 1, 0.0)])
    WandB(run_dir=tmp_path, mode="offline").scalars([Point("train/loss", 1.0, 1, 0.0)])
    assert [run.arguments["mode"] for run in wandb_runs] == ["online", "online", "offline"]


# -- all of them ---------------------------------------------------------------------------------


def test_a_writer_that_fails_does_not_take_the_others_along(tmp_path):
    class Broken(VisualDL):
        def scalars(self, points):
            raise RuntimeError("of its own kind")

    (tmp_path / "a").mkdir()
    working = VisualDL(run_dir=tmp_path)
    curves = Curves([Broken(run_dir=tmp_path / "a"), working])
    curves.add({"kind": "train", "step": 1, "time": 0.0, "loss": 1.0})
    curves.add({"kind": "train", "step": 2, "time": 0.0, "loss": 1.0})
    curves.close()
    assert curves.writers == [working]
    assert steps_of(tmp_path, "scalar", "train/loss") == [1, 2]


# -- a full disk ---------------------------------------------------------------------------------

FILL = 20_000  # bytes a process may write to one file: a disk with no more room

ON_A_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from passl.logs.curves import Curves
from passl.logs.logger import setup_logging
from passl.logs.metrics import MetricsWriter
from passl.logs.writers.{module} import {name}

run_dir = Path(sys.argv[1])
setup_logging(None)
metrics = MetricsWriter(run_dir, [{name}(run_dir=run_dir)])
metrics.start_over()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead, with EFBIG
resource.setrlimit(resource.RLIMIT_FSIZE, ({fill}, {fill}))
pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
for step in range(100):
    metrics.curves.add({{"kind": "train", "step": step, "time": 1.0, "loss": 1.0, "lr": 0.1}})
    metrics.curves.image("train/batch", pixels, step)
metrics.close()
print("the end")
"""


@pytest.mark.usefixtures("_tensorboard")
@pytest.mark.parametrize(
    ("module", "name", "pattern"),
    [("visualdl", "VisualDL", "vdl/*records*"), ("tensorboard", "TensorBoard", "tensorboard/*")],
)
def test_a_full_disk_costs_one_warning_and_no_second_of_waiting(tmp_path, module, name, pattern):
    program = ON_A_FULL_DISK.format(module=module, name=name, fill=FILL)
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    warnings = [line for line in ran.stdout.splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert f"nothing more is shown in {name}, training goes on" in warnings[0]
    assert ran.stdout.splitlines()[-1] == "the end"
    assert ran.stderr == ""
    (file,) = tmp_path.glob(pattern)
    assert 0 < file.stat().st_size <= FILL
    assert reads_to_its_end(file, module), "a record is torn"


def reads_to_its_end(path, module):
    if module == "visualdl":
        from passl.logs.writers.visualdl import _records

        read = sum(8 + record.ByteSize() for record in _records(path))
    else:
        from passl.logs.writers.tensorboard import _events

        read = sum(16 + event.ByteSize() for event in _events(path))
    return read == path.stat().st_size


@pytest.mark.usefixtures("_tensorboard")
def test_events_that_are_added_after_a_close_leave_the_former_ones(tmp_path):
    writer = TensorBoard(run_dir=tmp_path)
    for step in (1, 2):  # within one second, which the names of the files count in
        writer.scalars([Point("train/loss", 0.5, step, 1.0)])
        writer.close()
    assert [point.step for point in accumulated(tmp_path).Scalars("train/loss")] == [1, 2]
