"""Wheel and source distribution install in a clean environment, with the configs inside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from passl.cli.commands import COMMANDS

REPO = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    path.relative_to(REPO).as_posix()
    for path in [*REPO.glob("configs/**/*.yaml"), *REPO.glob("tasks/**/configs/*.yaml")]
)
pytestmark = pytest.mark.slow


def _run(command: list[str], folder: Path, environment: dict[str, str], status: int = 0) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == status, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def clean() -> dict[str, str]:
    """An environment in which nothing leads to the checkout."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV", "COV_", "FLAGS_"))
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the source distribution is made of, without what git ignores."""
    copy = tmp_path_factory.mktemp("source")
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPO, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if name.startswith("tests/golden/") or not (REPO / name).is_file():
            continue  # large, and not what is looked at here
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((REPO / name).read_bytes())
        (copy / name).chmod((REPO / name).stat().st_mode)
    return copy


@pytest.fixture(scope="module")
def sdist(source: Path, clean: dict[str, str]) -> Path:
    code = "from setuptools.build_meta import build_sdist; print(build_sdist('dist'))"
    _run([sys.executable, "-c", code], source, clean)
    (archive,) = (source / "dist").glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory, clean: dict[str, str]) -> Path:
    """Built from the source distribution, as an index's users would."""
    pytest.importorskip("wheel")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    _run([*pip, "--wheel-dir", str(folder), str(sdist)], folder, clean)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory, clean: dict[str, str]) -> Path:
    """The commands of a virtual environment with the wheel; its requirements are this one's."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    _run([*pip, "--no-index", str(wheel)], folder, clean)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    own = Path(_run([sys.executable, "-c", _WHERE_NUMPY_IS], folder, clean).strip())
    for entry in own.iterdir():  # all but this checkout's passl
        if "passl" not in entry.name and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    return folder / "venv/bin"


_WHERE_NUMPY_IS = "import numpy, pathlib; print(pathlib.Path(numpy.__file__).parents[1])"


def test_the_source_distribution_has_what_the_wheel_is_made_of(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {*CONFIGS, "setup.py", "pyproject.toml", "README.md", "LICENSE", "Makefile"}
    assert names >= {"tools/train.py", "requirements/constraints.txt", "docs/config.md"}
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_has_every_config_and_only_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        for name in CONFIGS:
            assert archive.read(f"passl/_shipped/{name}") == (REPO / name).read_bytes()
    assert "passl/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"passl"}
    inside = {name for name in names if name.startswith("passl/_shipped/")}
    assert inside == {f"passl/_shipped/{name}" for name in CONFIGS}


def test_every_command_shows_its_help(installed: Path, clean: dict[str, str]) -> None:
    for command in COMMANDS.values():
        apart = _run([str(installed / "passl"), command.name, "--help"], installed, clean)
        assert f"usage: {command.prog}" in apart
        if command.script:
            assert _run([str(installed / command.prog), "--help"], installed, clean) == apart


def test_what_is_installed_is_the_wheel(installed: Path, clean: dict[str, str]) -> None:
    code = "import passl; print(passl.__file__)"
    file = _run([str(installed / "python"), "-c", code], installed, clean).strip()
    assert Path(file).is_relative_to(installed.parent)


def test_every_config_checks_by_its_name(
    installed: Path, clean: dict[str, str], tmp_path: Path
) -> None:
    code = """
from passl.config import load_config
from passl.config.shipped import shipped_configs
for name, path in shipped_configs().items():
    config = load_config(name, mode="train")
    assert config.source_name == name and "_shipped" in str(config.source_path), name
    print(name)
"""
    names = _run([str(installed / "python"), "-c", code], tmp_path, clean).split()
    assert len(names) == len([name for name in CONFIGS if "/_base_/" not in name])


def test_a_config_by_name_checks_starts_and_trains(
    installed: Path, clean: dict[str, str], tmp_path: Path
) -> None:
    name = "quickstart/ViT_micro_digits"
    shown = _run([str(installed / "passl-check"), "-c", name], tmp_path, clean)
    assert re.search(rf"{name} \(.*_shipped/configs/{name}\.yaml\): the config is right", shown)
    new = ["new", "digits", "--from", name, "--set", "Global.max_train_step=2"]
    _run([str(installed / "passl"), *new], tmp_path, clean)
    _run([str(installed / "passl"), "train", "-c", "digits"], tmp_path, clean)
    run = tmp_path / "output/digits/VisionTransformer"
    assert (run / "latest/model.pdparams").exists()
    first = (run / "config.yaml").read_text().splitlines()[0]
    assert first == "# command: passl-train -c digits"
    mistake = [str(installed / "passl-train"), "-c", "ViT_micro_digit"]
    _run(mistake, tmp_path, clean, status=2)
