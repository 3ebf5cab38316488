"""``passl-config``: list, show, diff and explain, as a person sees them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from passl.cli import check
from passl.cli.config import main
from passl.config import load_config
from passl.config.yaml_tree import read_yaml_file

REPO = Path(__file__).resolve().parents[3]
CONFIG = "quickstart/ViT_micro_digits"
FILE = REPO / "configs" / f"{CONFIG}.yaml"


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys):
    """``run(*arguments)`` -> what is printed."""

    def run_command(*arguments: str, status: int = 0) -> str:
        assert main(list(arguments)) == status
        shown = capsys.readouterr()
        return shown.err if status == 2 else shown.out

    return run_command


def _line_of(text: str) -> int:
    return 1 + next(n for n, line in enumerate(FILE.read_text().splitlines()) if text in line)


# -- list --------------------------------------------------------------------------------------


def test_list_names_what_ships_with_its_first_line(run):
    lines = run("list", "vit_micro*").splitlines()
    assert lines == [f"{CONFIG}  {FILE.read_text().splitlines()[0].lstrip('# ')}"]
    assert run("list", "--paths", "ViT_micro*").strip() == str(FILE)


def test_list_of_nothing_suggests(run):
    assert "did you mean 'ViT_base_patch16_224'" in run("list", "ViT_base_patch16_22", status=2)


# -- show --------------------------------------------------------------------------------------


def test_show_is_the_resolved_config(run, tmp_path):
    text = run("show", "-c", CONFIG, "-o", "Global.epochs=3")
    (tmp_path / "shown.yaml").write_text(text)
    assert load_config("shown.yaml").to_dict() == load_config(CONFIG, ["Global.epochs=3"]).to_dict()


def test_show_of_a_section_says_where_each_value_is_from(run):
    lines = run("show", "Optimizer", "-c", CONFIG, "-o", "Optimizer.weight_decay=0.5").splitlines()
    origin = {line.split(":")[0].strip(): line.partition("  # ")[2] for line in lines}
    assert origin["betas"] == f"{FILE}:{_line_of('betas:')}"
    assert origin["weight_decay"] == "-o Optimizer.weight_decay=0.5"
    assert origin["layer_decay"] == "default"
    assert "Model" not in origin


def test_show_of_one_value_or_several(run):
    text = run("show", "Global.epochs", "Loss.Train.0.weight", "-c", CONFIG, "--no-origins")
    assert text == "Global.epochs: 24\nLoss.Train.0.weight: 1.0\n"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("Optimiser", "the config has no 'Optimiser'; did you mean 'Optimizer'?"),
        ("Global.epoch", "Global has no 'epoch'; did you mean 'epochs'?"),
        ("Loss.Train.3", "Loss.Train has no '3'; it is a list of 1"),
    ],
)
def test_show_of_what_is_not_there_suggests(run, key, message):
    assert message in run("show", key, "-c", CONFIG, status=2)


# -- diff --------------------------------------------------------------------------------------


def test_diff_shows_both_values_with_their_places(run):
    text = run("diff", CONFIG, CONFIG, "-o", "Global.epochs=3")
    assert text.splitlines() == [
        f"- {CONFIG}",
        f"+ {CONFIG} -o Global.epochs=3",
        "Global.epochs",
        f"  - {'24':<40}  # {FILE}:{_line_of('epochs:')}",
        f"  + {'3':<40}  # -o Global.epochs=3",
    ]


def test_diff_with_a_run_takes_the_config_that_it_wrote(run, tmp_path):
    folder = tmp_path / "output/X"
    folder.mkdir(parents=True)
    ran = load_config(CONFIG, ["Optimizer.weight_decay=0.1"])
    (folder / "config.yaml").write_text(ran.to_yaml(origins=True))
    text = run("diff", CONFIG, "output/X")
    assert [line for line in text.splitlines() if not line.startswith((" ", "-", "+"))] == [
        "Optimizer.weight_decay"
    ]
    assert "# output/X/config.yaml:" in text


def test_diff_of_equals_says_so_and_its_exit_status_is_asked_for(run):
    assert "resolve to the same values" in run("diff", CONFIG, str(FILE), "--exit-code")
    run("diff", CONFIG, CONFIG, "-o", "Global.epochs=3", "--exit-code", status=1)
    run("diff", CONFIG, "nowhere.yaml", "--exit-code", status=2)


def test_diff_of_another_component_lists_the_arguments_of_either(run):
    text = run("diff", CONFIG, CONFIG, "-o", "Optimizer.name=SGD")
    heads = [line for line in text.splitlines() if line.startswith("Optimizer")]
    assert heads[0] == "Optimizer.name"
    assert "Optimizer.eps" in heads


# -- explain -----------------------------------------------------------------------------------


def test_explain_answers_what_it_can_and_names_all_that_it_cannot(capsys):
    assert main(["explain", "Global.epoch", "input_size", "Global.sed"]) == 2
    shown = capsys.readouterr()
    assert "input_size is no key here; it is Model.img_size" in shown.out
    assert shown.err.startswith("passl-config: 2 mistakes:\n  ")
    assert "'Global.epochs'" in shown.err
    assert "'Global.seed'" in shown.err


def test_explain_says_meaning_type_default_and_how_to_write_it(run):
    assert run("explain", "FP16.GradScaler.decr_ratio").splitlines() == [
        "FP16.GradScaler.decr_ratio",
        "    factor after `decr_every_n_nan_or_inf` bad steps.",
        "    takes     a number above 0 and below 1",
        "    default   0.5",
        "    write     -o FP16.GradScaler.decr_ratio=0.5",
    ]


def test_what_explain_says_to_write_is_accepted(run):
    """The usual sampler has no such argument: another must be named with it."""
    (line,) = [line for line in run("explain", "aug_repeats").splitlines() if "write" in line]
    flag, *overrides = line.split()[1:]
    assert (flag, len(overrides)) == ("-o", 2)
    train = load_config(CONFIG, overrides).DataLoader.Train
    assert train is not None
    assert train.sampler.component == {"name": "RepeatedAugSampler", "num_repeats": 3}
    assert "sampler.name" not in run("explain", "DataLoader.Train.sampler.shuffle")


def test_explain_with_a_config_says_where_it_is_set(run):
    text = run("explain", "Global.epochs", "Global.max_time", "-c", CONFIG)
    assert f"    in {CONFIG}: Global.epochs = 24   # {FILE}:{_line_of('epochs:')}" in text
    assert f"    in {CONFIG}: Global.max_time = null   # default" in text


def test_explain_with_a_config_means_its_components(run):
    text = run("explain", "Optimizer.betas", "-c", CONFIG)
    assert text.startswith("Optimizer.AdamW.betas\n")
    assert "Lion" not in text


def test_explain_of_a_component_that_the_config_lacks_says_so(run):
    text = run("explain", "Optimizer.Lion.betas", "-c", CONFIG)
    assert f"in {CONFIG}: nowhere; it has no Lion there" in text


def test_explain_tells_of_many_components_at_once(run):
    text = run("explain", "Model.drop_rate")
    assert text.startswith("Model.drop_rate\n")
    assert "and " in text
    assert "more" in text


def test_explain_of_a_pattern_lists_a_line_each(run):
    lines = run("explain", "Global.*").splitlines()
    assert any(line.split()[:2] == ["Global.epochs", "null"] for line in lines)
    assert len(lines) == len([line for line in lines if line.startswith("  Global.")])


def test_explain_of_passls_key_says_what_it_became(run):
    assert run("explain", "Optimizer.epsilon").splitlines()[0] == (
        "PASSL's Optimizer.epsilon: read as Optimizer.eps"
    )


def test_explain_of_a_misspelled_key_is_a_mistake_that_suggests(run):
    assert "did you mean 'Global.epochs'?" in run("explain", "Global.epoch", status=2)


def test_explain_imports_neither_paddle_nor_numpy():
    code = (
        "import sys; from passl.cli.config import main\n"
        f"main(['explain', 'Optimizer.AdamW.eps', '-c', '{CONFIG}'])\n"
        "print([name for name in ('paddle', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_show_prints_is_yaml_without_mistakes(run, tmp_path):
    (tmp_path / "part.yaml").write_text(run("show", "DataLoader", "-c", CONFIG))
    problems: list[str] = []
    assert read_yaml_file(Path("part.yaml"), problems) is not None
    assert problems == []


# -- mistakes, as docs/config.md shows them ----------------------------------------------------


def test_the_mistakes_of_the_page_are_told_in_its_words(tmp_path, capsys):
    (tmp_path / "my.yaml").write_text(
        "_base_: ViT_base_patch16_224\nGlobal: {epoch: 5}\nModel: {drop_path: 0.1}\n"
        "Optimizer: {weight_decay: -0.3}\n"
    )
    assert check.main(["-c", "my.yaml", "-o", "FP16.level=O3"]) == 2
    page = (REPO / "docs" / "config.md").read_text(encoding="utf-8")
    assert capsys.readouterr().err in page
