"""From a config by name to a config of one's own to a run, in an empty folder."""

from __future__ import annotations

import subprocess
import sys

from passl.cli import train


def test_a_new_config_checks_and_trains(tmp_path, user_environment):
    def passl(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "passl", *arguments],
            cwd=tmp_path, env=user_environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    settings = ["Global.max_train_step=2", "Model.depth=1"]
    passl("new", "digits", "--from", "quickstart/ViT_micro_digits", "--set", *settings)
    assert "the config is right" in passl("check", "-c", "digits.yaml")
    log = passl("train", "-c", "digits")
    assert "passl-eval -c digits.yaml" in log  # what to type next, in this folder
    run = tmp_path / "output/digits/VisionTransformer"
    assert (run / "latest/model.pdparams").exists()
    assert "resolve to the same" in passl("config", "diff", "digits", str(run))


def test_a_run_of_a_config_by_name_says_the_name_for_the_next_command(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert train.main(["-c", "ViT_micro_digits", "-o", "Global.max_train_step=1"]) == 0
    assert "passl-eval -c quickstart/ViT_micro_digits" in "".join(capsys.readouterr())
