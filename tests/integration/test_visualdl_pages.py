"""VisualDL's pages of two real runs in a real browser: what a person sees there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import MISSING, Browser, is_up, wait_for
from local_ports import free_port
from PIL import Image
from small_run import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[RunFolder]:
    """Two runs that differ in their learning rate, the second one stopped and resumed."""
    root = tmp_path_factory.mktemp("runs")
    first, second = RunFolder(root / "first"), RunFolder(root / "second")
    shown = ("Global.use_visualdl=true", "Logging.histograms_every=6")
    assert first.train(*shown, "Global.epochs=4") == 0
    slow = (*shown, "LRScheduler.learning_rate=0.0078125", "Global.epochs=4")
    assert second.train(*slow, "Global.max_train_step=9") == 0
    assert second.train(*slow) == 0
    return [first, second]


@pytest.fixture(scope="module")
def site(runs, user_environment):
    """Address of a VisualDL that shows both runs."""
    port = free_port()
    folder = runs[0].root.parent
    server = subprocess.Popen(
        [sys.executable, "-c", "from visualdl.server.app import main; main()", "--logdir", folder,
         "--host", "127.0.0.1", "--port", str(port)],
        env=user_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}/app"
    try:
        wait_for(lambda: is_up(f"{address}/index.html"), "VisualDL")
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture
def shots(tmp_path) -> Path:
    """Where pictures of the pages go: ``PASSL_SCREENSHOTS``, to look at them, or away."""
    folder = Path(os.environ.get("PASSL_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shown(browser, url: str, words: list[str], path: Path) -> str:
    """Open a page, wait until all words are on it, and take its picture."""
    browser.open(url)
    wait_for(lambda: all(word in browser.text() for word in words), f"{words} on {url}")
    browser.screenshot(path)
    return browser.text()


def test_scalars_are_drawn_for_both_runs(browser, site, shots):
    words = ["eval", "train", "first/", "second/"]  # what is in the charts is drawn, not written
    shown(browser, f"{site}/scalar", words, shots / "scalars.png")
    charts = "return document.querySelectorAll('canvas').length"
    wait_for(lambda: browser.run(charts) >= 3, "charts")
    coloured = (
        "return [...document.querySelectorAll('canvas')].slice(0, 3).map(canvas => {"
        "const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        "let count = 0; for (let i = 0; i < data.length; i += 4)"
        "  count += data[i + 3] && Math.max(data[i], data[i+1], data[i+2])"
        "    - Math.min(data[i], data[i+1], data[i+2]) > 60;"
        "return count})"
    )
    wait_for(lambda: min(browser.run(coloured)) > 200, "coloured curves")
    browser.screenshot(shots / "scalars.png")


def test_pictures_of_the_batch_and_of_mistakes_are_loaded(browser, site, shots):
    shown(browser, f"{site}/sample/image", ["eval/worst_mistakes", "Step: 6"], shots / "images.png")
    loaded = "return [...document.images].filter(image => image.naturalWidth > 400).length"
    wait_for(lambda: browser.run(loaded) == 2, "the pictures of two runs")
    browser.screenshot(shots / "images.png")
    pixels = np.asarray(Image.open(shots / "images.png").convert("L"))
    assert (pixels[300:560, 40:480] < 30).mean() > 0.1, "no digit on its black ground"


def test_settings_and_final_accuracies_stand_side_by_side(browser, site, runs, shots):
    words = ["LRScheduler/learning_rate", "Optimizer/weight_decay", "eval/top1"]
    text = shown(browser, f"{site}/hyper-parameter", words, shots / "hparams.png")
    assert "0.0078125" in text
    for run in runs:
        last = run.records("eval")[-1]["top1"]
        assert f"{last:.4f}"[:6] in text, (last, text)


def test_the_graph_shows_the_layers(browser, site, shots):
    words = ["patch_embed", "blocks", "head: Linear"]
    shown(browser, f"{site}/graph/dynamic_graph", words, shots / "graph.png")


def test_histograms_are_drawn(browser, site, shots):
    shown(browser, f"{site}/histogram", ["gradients", "weights"], shots / "histograms.png")
    drawn = "return document.querySelectorAll('svg, canvas').length"
    wait_for(lambda: browser.run(drawn) > 5, "charts")
    browser.screenshot(shots / "histograms.png")
