"""What a real run hands to VisualDL, read back, and that it changes nothing; the terminal."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from shlex import quote

import numpy as np
from docs_blocks import read_blocks
from PIL import Image
from small_run import assert_same_arrays
from terminal import on_terminal

import passl

SHOWN = "Global.use_visualdl=true"


def reader(run):
    from visualdl import LogReader

    return LogReader(file_path=str(run.dir / "vdl/vdlrecords.passl.log"))


def steps_of(run, component, tag):
    return [record.id for record in reader(run).get_data(component, tag)]


def test_visualdl_gets_the_curves_pictures_settings_and_graph_of_a_run(run_folder, capsys):
    assert run_folder.train(SHOWN, "Global.epochs=2", "Logging.histograms_every=5") == 0
    tags = reader(run_folder).get_tags()
    assert {"train/loss", "train/top1", "train/lr", "train/grad_norm", "train/ips",
            "train/reader_cost", "train/host_mem_gb", "eval/loss", "eval/top1", "eval/best"} <= {
        *tags["scalar"]
    }
    assert steps_of(run_folder, "image", "train/batch") == [1]
    assert steps_of(run_folder, "image", "eval/worst_mistakes") == [6, 12]
    assert steps_of(run_folder, "histogram", "weights/head.weight") == [5, 10]
    assert steps_of(run_folder, "histogram", "gradients/head.weight") == [5, 10]
    (record,) = reader(run_folder).get_data("hyper_parameters", "hparam")
    results = [info.name for info in record.hparam.metricInfos]
    assert results[:2] == ["eval/best", "eval/top1"]
    assert set(results) <= set(tags["scalar"])
    graph = json.loads((run_folder.dir / "vdl/vdlgraph.passl.log").read_text())
    assert any(node["type"] == "head: Linear" for node in graph["nodes"])
    out = capsys.readouterr().out
    command = f"visualdl --logdir {quote(f'{run_folder.dir}/vdl')}"
    assert out.count(command) == 2  # at the start and at the end


def test_the_gradients_shown_are_those_of_the_step(run_folder):
    """Their norm is in metrics.jsonl; after they are cleared they would be zeros."""
    options = ("Global.max_train_step=3", "Logging.histograms_every=3", SHOWN,
               "Global.print_batch_step=1", "Optimizer.grad_clip=null")
    assert run_folder.train(*options) == 0
    names = [tag for tag in reader(run_folder).get_tags()["histogram"] if tag.startswith("grad")]
    widest = max(
        max(abs(edge) for edge in reader(run_folder).get_data("histogram", name)[0]
            .histogram.bin_edges)
        for name in names
    )
    norm = run_folder.records("train")[2]["grad_norm"]
    assert 0.0 < widest <= norm < widest * len(names) * 50


def test_the_pictures_are_the_samples_of_the_first_batch(run_folder):
    assert run_folder.train(SHOWN, "Global.max_train_step=1", "Logging.images=1") == 0
    (record,) = reader(run_folder).get_data("image", "train/batch")
    sheet = np.asarray(Image.open(io.BytesIO(record.image.encoded_image_string)))
    small = sheet[8:128:15, 8:128:15, 0][:8, :8]  # a picture of 8 x 8 in a cell of 120
    from sklearn.datasets import load_digits

    digits = np.rint(load_digits().images * 255 / 16)
    nearest = np.abs(digits - small).mean(axis=(1, 2)).min()
    assert nearest < 2.0


def test_what_is_shown_changes_no_bit_of_the_weights(make_run):
    plain, shown = make_run("plain"), make_run("shown")
    assert plain.train("Global.epochs=2") == 0
    assert shown.train("Global.epochs=2", SHOWN, "Logging.histograms_every=4") == 0
    assert_same_arrays(plain.weights(), shown.weights())
    assert_same_arrays(plain.optimizer(), shown.optimizer())
    assert not (plain.dir / "vdl").exists()


def test_a_resumed_run_shows_every_step_once(make_run):
    run = make_run("stopped")
    assert run.train(SHOWN, "Global.max_train_step=8", "Global.save_interval=4",
                     "Global.save_unit=step", "Logging.histograms_every=2") == 0
    assert run.train(SHOWN, "Global.epochs=5", "Global.max_train_step=14",
                     "Logging.histograms_every=2") == 0
    for tag in ("train/loss", "eval/top1"):
        steps = steps_of(run, "scalar", tag)
        assert steps == sorted(set(steps)), tag
    assert steps_of(run, "image", "train/batch") == [1, 9]
    assert steps_of(run, "image", "eval/worst_mistakes") == [6, 8, 12, 14]
    assert steps_of(run, "histogram", "weights/head.weight") == [2, 4, 6, 8, 10, 12, 14]


def test_a_killed_run_can_be_read_and_continued(run_folder, user_environment):
    code = (
        "import os, signal\n"
        "from passl.engine.reports.reporting import Reporter\n"
        "from passl.cli import train\n"
        "real = Reporter.step\n"
        "def step(self, state, batch):\n"
        "    real(self, state, batch)\n"
        "    if state.step == 9:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Reporter.step = step\n"
        f"train.main(['-c', {str(run_folder.config_file)!r}, '-o', {SHOWN!r}])\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env=user_environment, capture_output=True
    )
    assert process.returncode == -9, process.stderr
    assert steps_of(run_folder, "image", "eval/worst_mistakes") == [6]
    assert steps_of(run_folder, "scalar", "train/loss")[:4] == [1, 3, 5, 7]
    assert run_folder.train(SHOWN, "Global.max_train_step=12") == 0
    assert steps_of(run_folder, "image", "eval/worst_mistakes") == [6, 12]
    assert steps_of(run_folder, "scalar", "eval/top1") == [6, 12]


def test_the_first_and_the_last_words_fit_a_screen_of_80_by_24(run_folder, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    code = (
        "from passl.cli import train\n"
        f"train.main(['-c', {str(run_folder.config_file)!r}, '-o', {SHOWN!r}, 'Global.epochs=2'])"
    )
    screen, data = on_terminal(code, columns=80, may_wrap=True)
    lines = [line.rstrip() for line in screen.lines]
    first = next(i for i, line in enumerate(lines) if "epoch 1/2 1/6" in line)
    done = next(i for i, line in enumerate(lines) if " done: 12 steps" in line)
    long_paths = str(run_folder.root)  # which are longer than any that a person would choose
    assert first - sum(long_paths[:40] in line for line in lines[:first]) <= 16
    assert len([line for line in lines[done:] if line[:1] not in ("", "/")]) <= 24
    full = [line for line in lines if len(line) == 80 and "/" not in line]
    assert full == [], "wrapped in the middle of a word"
    assert re.fullmatch(r"\d\d:\d\d:\d\d epoch 1/2 1/6  loss \d.*", lines[first])
    said = "\n".join(lines[done:])
    for command in ("eval -c", "visualize confusion", "export -c", "train -c"):
        assert f"\n  passl-{command} " in said
    assert re.search(r"epoch 2/2 \[[#-]+\] \d/6 .*eta 0:", data.decode())
    assert re.search(r"\revaluation|evaluation \[", data.decode())
    assert "passl INFO" not in data.decode()
    assert "[Train][Epoch 1/2][Iter: 0/6]" in run_folder.log()


def test_a_stop_is_told_once_and_below_the_live_line(run_folder):
    code = (
        "import os, signal\n"
        "from passl.cli import train\n"
        "from passl.logs.progress import ProgressBar\n"
        "draw, asked = ProgressBar.redraw, []\n"
        "def stop_when_drawn(bar):\n"
        "    draw(bar)\n"
        "    if bar._told is not None and not asked:\n"
        "        asked.append(True)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "ProgressBar.redraw = stop_when_drawn\n"
        f"train.main(['-c', {str(run_folder.config_file)!r}, '-o', 'Global.epochs=2'])"
    )
    screen, _ = on_terminal(code, columns=200, may_wrap=True)
    lines = [line.rstrip() for line in screen.lines]
    assert "SIGINT: stopping at the next step or batch" in lines
    assert sum("stopped after step" in line for line in lines) == 1
    assert "stopped after step" in run_folder.log()


def test_an_evaluation_alone_has_a_live_line_and_leaves_its_result(run_folder):
    assert run_folder.train("Global.max_train_step=2") == 0
    code = (
        "from passl.cli import eval\n"
        f"eval.main(['-c', {str(run_folder.config_file)!r}])"
    )
    screen, data = on_terminal(code, columns=200, may_wrap=True)
    assert re.search(rb"\revaluation \[#{10,}-*\] \d/2|evaluation \[#+-*\] \d/2", data)
    lines = [line for line in screen.lines if line]
    assert re.match(r"\d\d:\d\d:\d\d evaluated 359 samples in ", lines[-1])
    assert "evaluated epoch 1  top1 0." in lines[-2]
    assert not any("evaluation [" in line for line in lines)


def test_the_blocks_of_the_page_on_logs_are_configs(run_folder, repo):
    blocks = read_blocks(repo / "docs/logs.md", repo)
    texts = [block.text for block in blocks if block.language == "yaml"]
    assert len(texts) == 2
    for number, text in enumerate(texts):
        file = run_folder.root / f"shown{number}.yaml"
        file.write_text(f"_base_: {run_folder.config_file.name}\n{text}")
        config = passl.load_config(file, [])
        assert "VisualDL" in [writer["name"] for writer in config.Logging.writers]
