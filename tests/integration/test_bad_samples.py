"""Runs on folders with really broken images: refused, or the same substitutes after any stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import yaml
from PIL import Image
from small_run import RunFolder, assert_same_arrays, digits_config

BROKEN = ("3/17.jpg", "5/4.jpg", "8/9.jpg")


@pytest.fixture
def broken_folder(tmp_path: Path) -> Path:
    """Six hundred JPEG files of real digits in ten class folders, three of them broken."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    root, counts = tmp_path / "digits", dict.fromkeys(range(10), 0)
    for image, label in zip(digits.images[:600], digits.target[:600].tolist()):
        folder = root / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        grey = (image * 15.9375).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{counts[label]}.jpg", quality=95)
        counts[label] += 1
    whole = (root / BROKEN[0]).read_bytes()
    (root / BROKEN[0]).write_bytes(whole[: len(whole) // 2])
    (root / BROKEN[1]).write_text("not an image")
    (root / BROKEN[2]).write_bytes(b"")
    return root


@pytest.fixture
def make_folder_run(tmp_path: Path, broken_folder: Path) -> Callable[..., RunFolder]:
    """Runs of the small config that train on the broken folder."""

    def make(name: str, **loader: Any) -> RunFolder:
        run = RunFolder(tmp_path / name)
        config = digits_config(run.root / "out")
        config["Model"]["in_chans"] = 3
        config["Global"].update(
            eval_during_train=False, epochs=4, save_unit="step", save_interval=2
        )
        train = config["DataLoader"]["Train"]
        flip = {"RandFlipImage": None}
        normalize = {"NormalizeImage": {"mean": [0.5] * 3, "std": [0.5] * 3, "order": ""}}
        train["dataset"] = {
            "name": "ImageFolder",
            "root": str(broken_folder),
            "transform_ops": [flip, normalize, {"ToCHWImage": None}],
        }
        train["sampler"]["batch_size"] = 64
        train["loader"].update(loader)
        run.config_file.write_text(yaml.safe_dump(config, sort_keys=False))
        return run

    return make


def listed(run: RunFolder) -> list[str]:
    lines = (run.dir / "bad_samples.txt").read_text().splitlines()
    return sorted(line.split("\t")[1].rpartition("digits/")[2] for line in lines)


def test_a_broken_image_ends_the_run_by_default(make_folder_run, capsys):
    run = make_folder_run("run")
    assert run.train() == 1
    assert "cannot be used: " in capsys.readouterr().err
    assert not (run.dir / "bad_samples.txt").exists()


def test_skipping_gives_the_same_run_however_often_it_is_stopped(make_folder_run):
    whole = make_folder_run("whole", bad_sample="skip", num_workers=3)
    assert whole.train() == 0
    assert listed(whole) == list(BROKEN)
    assert whole.log().count("takes its place") == 3  # once each, in four epochs
    stopped = make_folder_run("stopped", bad_sample="skip", num_workers=0)
    for step in (3, 17, 25):
        assert stopped.train(f"Global.max_train_step={step}") == 0
    assert stopped.train("DataLoader.Train.loader.num_workers=2") == 0
    assert_same_arrays(stopped.weights(), whole.weights())
    assert_same_arrays(stopped.optimizer(), whole.optimizer())
    assert listed(stopped) == list(BROKEN)


@pytest.mark.slow
def test_a_run_killed_with_sigkill_takes_the_same_substitutes(
    make_folder_run, repo, user_environment
):
    whole, killed = (
        make_folder_run("whole", bad_sample="skip"),
        make_folder_run("killed", bad_sample="skip"),
    )
    assert whole.train() == 0
    hook = f"{{name: SignalAt, step: 9, number: {signal.SIGKILL}, done: {killed.root / 'done'}}}"
    command = [sys.executable, str(repo / "tools/train.py"), "-c", str(killed.config_file)]
    command += ["-o", "Global.imports=[slow_parts]", f"Hooks=[{hook}]"]
    path = f"{repo / 'tests' / 'helpers'}:{user_environment['PYTHONPATH']}"
    environment = {**user_environment, "PYTHONPATH": path}
    done = subprocess.run(
        command, env=environment, cwd=repo, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert killed.state()["step"] < 9 < whole.state()["step"]
    assert killed.train() == 0
    assert_same_arrays(killed.weights(), whole.weights())
    assert listed(killed) == list(BROKEN)


def test_more_bad_images_than_allowed_stop_the_run(make_folder_run, capsys):
    run = make_folder_run("run", bad_sample="skip", max_bad_samples=2)
    assert run.train() == 1
    err = capsys.readouterr().err
    assert "3 of 600 samples cannot be used, more than the 2 that loader.max_bad_samples" in err
    assert "Traceback" not in err
    capsys.readouterr()
    assert run.train() == 1  # also when it is started again


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("DataLoader.Eval.loader.bad_sample=skip", "an accuracy over other images is another"),
        ("DataLoader.Train.loader.max_bad_samples=2.5", "2.5 is neither a fraction below 1 nor"),
        ("DataLoader.Train.loader.bad_sample=drop", "bad_sample"),
        ("DataLoader.Train.loader.timeout_s=-1", "timeout_s"),
        ("DataLoader.Train.loader.max_bad_samples=2", "has no effect with bad_sample: error"),
        ("DataLoader.Eval.sampler.drop_last=true", "leaves samples out"),
        ("DataLoader.Eval.sampler.name=RASampler", "samples of a data set of 359, and an accuracy"),
    ],
)
def test_settings_that_make_no_sense_are_refused(run_folder, capsys, override, sentence):
    assert run_folder.train(override) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_a_stuck_image_ends_the_command_with_a_sentence(make_folder_run, repo, user_environment):
    run = make_folder_run("run", bad_sample="skip", timeout_s=1)
    config = yaml.safe_load(run.config_file.read_text())
    fifo = Path(config["DataLoader"]["Train"]["dataset"]["root"]) / "0/0.jpg"
    fifo.unlink()
    os.mkfifo(fifo)  # reading it waits for a writer that never comes
    command = [sys.executable, str(repo / "tools/train.py"), "-c", str(run.config_file)]
    done = subprocess.run(
        command, env=user_environment, cwd=repo, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1
    assert "rank 0: data worker 0 (thread passl-data-0) is stuck: more than 1 s" in done.stderr
    assert str(fifo) in done.stderr
    assert "Traceback" not in done.stderr
