"""docs/transforms.md shows every transform, and its generator still writes it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import yaml
from PIL import Image

from passl.errors import ConfigError
from passl.registry import BATCH_TRANSFORMS, TRANSFORMS
from tools import draw_transforms

pytest.importorskip("sklearn")
NAMES = [*TRANSFORMS.names(), *BATCH_TRANSFORMS.names()]


def test_the_page_is_what_the_generator_writes(repo):
    written = (repo / "docs/transforms.md").read_text(encoding="utf-8")
    assert written == draw_transforms.page(), "run python tools/draw_transforms.py"


def test_every_transform_has_an_example_a_row_and_a_picture(repo):
    page = (repo / "docs/transforms.md").read_text(encoding="utf-8")
    assert sorted(draw_transforms.EXAMPLES) == sorted(NAMES)
    for name in NAMES:
        assert f"| [`{name}`](#{name.lower()}) |" in page
        assert (repo / f"docs/images/transforms/{name}.jpg").is_file()


def test_the_pictures_of_the_documentation_stay_small(repo):
    sizes = [path.stat().st_size for path in (repo / "docs/images").rglob("*") if path.is_file()]
    assert sum(sizes) < 2_000_000


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_of_a_transform_is_drawn_again(name, repo):
    registry = TRANSFORMS if TRANSFORMS.spec(name) else BATCH_TRANSFORMS
    buffer = io.BytesIO()
    draw_transforms.draw(registry, name).save(buffer, **draw_transforms.JPEG)
    drawn = np.asarray(Image.open(buffer), np.float32)
    kept = np.asarray(Image.open(repo / f"docs/images/transforms/{name}.jpg"), np.float32)
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 2  # grey levels; other releases of Pillow round otherwise


def test_every_example_shows_what_it_is_an_example_of():
    for name, chain in draw_transforms.EXAMPLES.items():
        entry = yaml.safe_load(chain)[-1]
        assert name == (entry if isinstance(entry, str) else next(iter(entry)))


def test_a_transform_without_an_example_says_where_to_add_it(monkeypatch):
    monkeypatch.delitem(draw_transforms.EXAMPLES, "Resize")
    with pytest.raises(ConfigError, match=r"Resize has no example; add one to EXAMPLES of draw_"):
        draw_transforms.draw(TRANSFORMS, "Resize")
