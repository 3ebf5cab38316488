"""The documentation as a site: no broken link, nothing from elsewhere, a search that works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="make docs installs it")
pytest.importorskip("material", reason="make docs installs it")


@pytest.fixture(scope="module")
def site(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)],
        cwd=repo,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built_and_files_beside_docs_are_reachable(site: Path, repo: Path) -> None:
    for page in (repo / "docs").glob("*.md"):
        assert (site / page.with_suffix(".html").name).is_file()
    text = (site / "architecture.html").read_text(encoding="utf-8")
    assert 'href="repository/CONTRIBUTING.html"' in text
    assert (site / "repository/CONTRIBUTING.html").is_file()


def test_a_page_needs_nothing_from_another_server(site: Path) -> None:
    loaded = re.compile(r'<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)="(https?:)?//[^"]*"')
    for page in site.rglob("*.html"):
        wrong = [
            found[0]
            for found in loaded.finditer(page.read_text(encoding="utf-8"))
            if 'rel="canonical"' not in found[0]
        ]
        assert not wrong, f"{page.name}: {wrong}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\"?https?:", sheet.read_text(encoding="utf-8")), sheet.name


def test_a_key_in_a_table_is_broken_between_its_words_and_a_flag_nowhere(site: Path) -> None:
    page = (site / "from_deit.html").read_text(encoding="utf-8")
    assert '<td><code class="flag">--weight-decay</code></td>' in page
    assert "<td><code>Optimizer.<wbr>weight_decay=<wbr>0.05</code></td>" in page
    page = (site / "sweeps.html").read_text(encoding="utf-8")
    assert '<span class="flag">--trials</span> N</code>' in page
    assert "<wbr>" not in (site / "search/search_index.json").read_text(encoding="utf-8")
    assert (site / "stylesheets/tables.css").is_file()


def test_a_bar_in_a_table_has_no_backslash(site: Path) -> None:
    page = (site / "visualize.html").read_text(encoding="utf-8")
    assert '<code><span class="flag">--layer</span> all|N|last</code>' in page
    for html in site.glob("*.html"):
        for code in re.findall(r"<td\b.*?</td>", html.read_text(encoding="utf-8"), re.DOTALL):
            assert r"\|" not in code, f"{html.name}: {code}"


@pytest.mark.parametrize(
    "word", ["OOM", "linear probe", "hyperparameters", "drop_path_rate", "bad_sample", "Slurm"]
)
def test_the_search_knows_words_of_the_pages(site: Path, word: str) -> None:
    index = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    assert any(word in entry["text"] or word in entry["title"] for entry in index["docs"])
    parts = re.split(index["config"]["separator"], "Model.drop_path_rate: 0.1")
    assert parts[1] == "drop_path_rate"


def test_a_broken_link_ends_the_build(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# A\n\n[b](b.md) [c](#nowhere)\n")
    text = (repo / "mkdocs.yml").read_text(encoding="utf-8").split("hooks:")[0]
    validation = "validation: {links: {anchors: warn}}\n"
    (tmp_path / "mkdocs.yml").write_text(text + validation)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=tmp_path, capture_output=True, text=True, timeout=900,
    )
    assert done.returncode != 0
    assert "b.md" in done.stderr
    assert "#nowhere" in done.stderr
