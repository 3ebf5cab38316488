"""The components that docs/extending.md shows are added as it says, and train."""

from __future__ import annotations

import sys

import yaml
from docs_blocks import read_blocks

from passl.cli import check


def test_the_loss_the_optimizer_and_the_hook_of_the_page_train_a_model(
    run_folder, repo, tmp_path, monkeypatch, capsys
):
    blocks = read_blocks(repo / "docs" / "extending.md", repo)
    loss, optimizer, hook = [block.text for block in blocks if block.language == "python"]
    package = tmp_path / "my_project"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text(loss)
    (package / "optimizers.py").write_text(optimizer)
    (package / "hooks.py").write_text(hook)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)  # the commands look there

    config = yaml.safe_load(run_folder.config_file.read_text())
    imports = []
    for block in blocks:
        if block.language == "yaml":
            shown = yaml.safe_load(block.text)
            imports += shown.pop("Global")["imports"]
            for section, value in shown.items():
                config[section] = {**config[section], **value} if section in config else value
    config["Global"]["imports"] = imports
    config["Hooks"][0]["accuracy"] = 0.3  # the page's 0.9 would take this small model too long
    run_folder.config_file.write_text(yaml.safe_dump(config))

    assert run_folder.train() == 0
    assert "FocalLoss" in run_folder.records("train")[0]
    assert "stopped after step " in run_folder.log()
    assert run_folder.state()["step"] < 30

    capsys.readouterr()
    assert run_folder.train("Loss.Train=[{FocalLoss: {gama: 1.5}}]") == 2
    assert "did you mean 'gamma'?" in capsys.readouterr().err
    assert run_folder.train("Loss.Train=[{FocalLoss: {gamma: -1}}]") == 2
    assert "expected a number of at least 0" in capsys.readouterr().err
    assert check.main(["--explain", "FocalLoss", "--imports", "my_project.losses"]) == 0
    assert "how fast a sample's weight falls with its probability." in capsys.readouterr().out
