"""Every YAML block of README and docs is a config, or a part that a recipe can be given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from docs_blocks import Block, documentation_files, read_blocks

from passl.config import load_config
from passl.errors import ConfigError

REPO = Path(__file__).resolve().parents[2]
_RECIPE = "DeiT_small_patch16_224.yaml"
# Where a part stands that is shown without its sections.
_PLACES = {
    "dataset": ("DataLoader", "Train"),
    "sampler": ("DataLoader", "Train"),
    "loader": ("DataLoader", "Train"),
    "batch_transform": ("DataLoader", "Train"),
    "transform_ops": ("DataLoader", "Train", "dataset"),
}
_BLOCKS = [
    block
    for page in documentation_files(REPO)
    # test_docs_extending.py writes the components of that page and trains with its blocks
    if page.name != "extending.md"
    for block in read_blocks(page, REPO)
    if block.language in ("yaml", "yml") and block.not_run is None
]


@pytest.mark.parametrize("block", _BLOCKS, ids=lambda block: block.where)
def test_a_yaml_block_is_a_config_or_a_part_of_one(block: Block, tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    configs.mkdir()
    for entry in (REPO / "configs").iterdir():
        (configs / entry.name).symlink_to(entry)
    (tmp_path / "tasks").symlink_to(REPO / "tasks")
    file = configs / "block_of_the_page.yaml"
    file.write_text(_whole(block.text), encoding="utf-8")
    try:
        load_config(str(file), mode="train")
    except ConfigError as error:
        wrong = [str(said) for said in error.problems if not _is_of_a_part(str(said))]
        assert not wrong, f"{block.where}: " + "\n".join(wrong)


def test_a_part_with_a_key_that_does_not_exist_is_found(tmp_path: Path) -> None:
    block = Block(Path("page.md"), 1, "yaml", "EMA: {deccay: 0.99}\n", False, None)
    with pytest.raises(AssertionError, match="did you mean 'decay'"):
        test_a_yaml_block_is_a_config_or_a_part_of_one(block, tmp_path)
    part = yaml.safe_load(_whole("transform_ops: [ToCHWImage]\n"))
    assert part["DataLoader"]["Train"]["dataset"] == {"transform_ops": ["ToCHWImage"]}


def _is_of_a_part(problem: str) -> bool:
    """What a part alone may lack: other sections, and the size that goes with a transform."""
    return ": missing; " in problem or " makes images of " in problem


def _whole(text: str) -> str:
    """The block on top of a recipe, at its place."""
    content: dict[str, Any] = yaml.safe_load(text)
    if "_base_" in content:  # a whole file: as it is written
        return text.replace("_base_: configs/", "_base_: ").replace("[configs/", "[")
    first = next(iter(content))
    inside: Any = content
    for section in reversed(_PLACES.get(first, ())):
        inside = {section: inside}
    if first not in _PLACES:
        return f"_base_: {_RECIPE}\n\n{text}"
    return yaml.safe_dump({"_base_": _RECIPE, **inside}, sort_keys=False)
