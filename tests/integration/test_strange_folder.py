"""Commands in a folder whose files are called like modules: none of them is run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRAPS = ("json", "socket", "paddle", "numpy", "yaml", "passl", "paddle2onnx", "struct")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "strange"
    folder.mkdir()
    for name in TRAPS:
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the folder was run')")
    return folder


def in_folder(folder: Path, environment: dict[str, str], command: str, *arguments: str) -> str:
    """Run an installed command there, which must succeed; what it printed."""
    script = folder.parent / f"passl-{command}"
    script.write_text(f"import sys\nfrom passl.cli.{command} import main\nsys.exit(main())\n")
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
    )  # fmt: skip
    assert "of the folder was run" not in done.stdout
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_sweep_starts_its_runs(run_folder, folder, user_environment):
    options = ["-o", "Global.epochs=1", "--grid", "LRScheduler.learning_rate=0.01"]
    in_folder(folder, user_environment, "sweep", "-c", str(run_folder.config_file), *options)
    (record,) = (run_folder.root / "out").glob("sweep_config/*/run.json")
    assert json.loads(record.read_text())["state"] == "done"


def test_processes_of_the_loader_start(run_folder, folder, user_environment):
    options = ["Global.epochs=1", "DataLoader.Train.loader.workers=processes"]
    in_folder(folder, user_environment, "train", "-c", str(run_folder.config_file), "-o", *options)


@pytest.mark.slow
def test_an_export_to_onnx_is_made(run_folder, folder, user_environment):
    pytest.importorskip("paddle2onnx")
    assert run_folder.train("Global.epochs=1") == 0
    options = ["--format", "onnx", "--out", str(folder.parent / "onnx")]
    in_folder(folder, user_environment, "export", "-c", str(run_folder.config_file), *options)
