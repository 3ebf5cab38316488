"""A folder with config files, and the fake components of fake_parts.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable, Optional

import pytest

from passl.config import Config, load_config
from passl.errors import ConfigError
from passl.registry import REGISTRIES

HERE = Path(__file__).parent

#: The least that trains.
BASE = """\
Global:
  imports: [fake_parts]
  epochs: 2
  global_batch_size: 8
  eval_during_train: false
Model:
  name: ToyNet
Loss:
  Train:
    - ToyLoss: {weight: 0.5, epsilon: 0.1}
LRScheduler:
  name: ToySchedule
  learning_rate: 3e-3
Optimizer:
  name: ToyOpt
  weight_decay: 0.1
DataLoader:
  Train:
    dataset:
      name: ToyData
      root: ./data
      transform_ops:
        - ToyCrop: {size: 32}
        - ToyFlip:
"""


@pytest.fixture(autouse=True)
def _fake_components(monkeypatch, tmp_path):
    """Fake components come and go with each test, which runs in a folder of its own."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.chdir(tmp_path)
    for registry in REGISTRIES.values():
        registry.names()
    before = {
        kind: (dict(registry._specs or {}), dict(registry._objects))
        for kind, registry in REGISTRIES.items()
    }
    yield
    for kind, (specs, objects) in before.items():
        REGISTRIES[kind]._specs, REGISTRIES[kind]._objects = specs, objects
    sys.modules.pop("fake_parts", None)


@pytest.fixture
def base() -> str:
    """The least that trains, with fake components."""
    return BASE


@pytest.fixture
def write(tmp_path) -> Callable[[str, str], Path]:
    """``write("a/b.yaml", text)``: a file of the test's folder, which is the current one."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def load(write) -> Callable[..., Config]:
    """``load(yaml text, *overrides)`` -> the config."""

    def load_text(text: str = BASE, *overrides: str, mode: Optional[str] = None) -> Config:
        return load_config(write("x.yaml", text), overrides, mode=mode)

    return load_text


@pytest.fixture
def problems(load) -> Callable[..., list[str]]:
    """``problems(yaml text, *overrides)`` -> the lines of the error."""

    def problems_of(text: str = BASE, *overrides: str, mode: Optional[str] = None) -> list[str]:
        with pytest.raises(ConfigError) as error:
            load(text, *overrides, mode=mode)
        assert error.value.exit_code == 2
        assert str(error.value) == "\n".join(error.value.problems)
        return error.value.problems

    return problems_of
