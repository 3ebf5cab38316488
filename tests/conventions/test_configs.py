"""Every config that ships is a valid one."""

from __future__ import annotations

from pathlib import Path

import pytest

from passl.config import load_config, plan_batches

REPO = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    path
    for folder in ("configs", "tasks")
    for path in REPO.glob(f"{folder}/**/*.yaml")
    if "_base_" not in path.parts
)


def test_the_quick_start_ships() -> None:
    assert REPO / "configs/quickstart/ViT_micro_digits.yaml" in CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(REPO)))
def test_a_shipped_config_loads(path: Path) -> None:
    config = load_config(str(path))
    assert config.Model["name"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(REPO)))
def test_a_shipped_config_has_consistent_batch_sizes(path: Path) -> None:
    config = load_config(str(path))
    plan = plan_batches(config, 1)
    assert plan.describe()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(REPO)))
def test_a_shipped_config_opens_with_what_it_is_for(path: Path) -> None:
    first = path.read_text(encoding="utf-8").lstrip().splitlines()[0]
    assert first.startswith("# "), f"{path}: start with a comment: what it trains, command, result"
