"""``passl-models``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from passl.cli.models import main
from passl.registry import MODELS


def _run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(list(argv))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_table_of_a_pattern(capsys):
    status, out, err = _run(capsys, "ViT_base_patch16_???")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "name                  image  patch  params  GMACs  aliases",
        "ViT_base_patch16_224  224    16     87.16M  17.56",
        "ViT_base_patch16_384  384    16     86.86M  55.48  vit_base_patch16_384",
        "vit_base_patch16_224  224    16     86.57M  17.56  ViT-B_16",
    ]


def test_without_a_pattern_every_model_is_listed(capsys):
    _, out, _ = _run(capsys)
    assert "ViT_6B_patch14_224" in out
    assert "VisionTransformer" in out


def test_models_of_ones_own_are_listed_and_shown(capsys, tmp_path, monkeypatch):
    (tmp_path / "passl_own_models.py").write_text(
        "from passl.registry import MODELS\n\n\n@MODELS.register()\nclass OwnNet:\n"
        '    """A net."""\n\n    def __init__(self, *, class_num: int = 10) -> None:\n'
        "        raise AssertionError\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(MODELS, "_specs", dict(MODELS._index()))
    own = ("--imports", "passl_own_models")
    status, out, err = _run(capsys, "OwnN*", *own)
    assert (status, err) == (0, "")
    assert out.splitlines()[1].split() == ["OwnNet", "-", "-", "-", "-"]
    status, out, _ = _run(capsys, "show", "OwnNet", *own)
    assert (status, out.splitlines()[0]) == (0, "OwnNet  (passl_own_models.OwnNet)")
    assert _run(capsys, "OwnN*", "--imports", "no_such_module")[0] == 1


def test_json_table(capsys):
    _, out, _ = _run(capsys, "ViT-H_14", "--json")
    assert json.loads(out) == [{
        "name": "ViT-H_14", "aliases": [], "image": [224, 224], "patch_size": 14,
        "parameters": 632_045_800, "macs": 167_295_109_120,
    }]


def test_unknown_pattern_names_the_nearest_and_fails(capsys):
    status, out, err = _run(capsys, "ViT_bse_patch16_384*")
    assert (status, out) == (2, "")
    assert err.startswith(
        "passl-models: no model matches 'ViT_bse_patch16_384*'; the nearest names are "
    )
    assert "ViT_base_patch16_384" in err


def test_pattern_like_no_name(capsys):
    status, _, err = _run(capsys, "zzzz")
    assert status == 2
    assert err == "passl-models: no model matches 'zzzz'; passl-models lists all of them\n"


def test_show_tells_arguments_defaults_and_meaning(capsys):
    status, out, _ = _run(capsys, "show", "ViT_base_patch16_224")
    assert status == 0
    first = "ViT_base_patch16_224  (passl.models.vision_transformer.VisionTransformer)"
    assert out.splitlines()[0] == first
    assert "87,158,248 parameters" in out
    assert "  representation_size = 768  (a whole number of at least 1 or null)\n" in out
    assert "      number of classes; 0 for a model that returns features" in out


def test_show_by_alias_in_json(capsys):
    _, out, _ = _run(capsys, "show", "vit_small_patch32_384", "--json")
    shown = json.loads(out)
    assert shown["name"] == "ViT_small_patch32_384"
    defaults = {argument["name"]: argument["default"] for argument in shown["arguments"]}
    assert defaults["embed_dim"] == 384
    assert all(argument["doc"] for argument in shown["arguments"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["show"], "which model? for example: passl-models show ViT_base_patch16_224"),
        (["show", "qqqqqqqq"], "no model is called 'qqqqqqqq'; `passl-models` lists them all"),
        (["a*", "b*"], "one pattern at a time, please (in quotes, so that the shell leaves it "
                       "alone): passl-models 'a*'"),
    ],
)
def test_mistakes_are_answered_in_one_line(capsys, argv: list[str], message: str):
    status, out, err = _run(capsys, *argv)
    assert (status, out, err) == (2, "", f"passl-models: {message}\n")


def test_paddle_is_not_imported():
    code = (
        "import sys; from passl.cli.models import main; status = main(['ViT*']); "
        "sys.exit(9 if 'paddle' in sys.modules or 'numpy' in sys.modules else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
