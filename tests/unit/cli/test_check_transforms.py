"""``passl-check`` builds the transforms, so that their own checks speak before a run."""

from __future__ import annotations

from passl.cli.check import main

DEIT = "configs/DeiT_tiny_patch16_224.yaml"


def test_every_mistake_of_a_transform_is_told_with_its_place(repo, capsys):
    options = [
        "-o",
        "DataLoader.Train.dataset.transform_ops.3.config_str=rand-m9-mdst0.5",
        "DataLoader.Train.batch_transform.0.mixup_alpha=0",
        "DataLoader.Train.batch_transform.0.cutmix_alpha=0",
    ]
    assert main(["-c", str(repo / DEIT), *options]) == 2
    error = capsys.readouterr().err
    assert "2 mistakes" in error
    assert "DataLoader.Train.dataset.transform_ops.3: the policy 'rand-m9-mdst0.5' has the" in error
    assert "did you mean 'mstd'?" in error
    assert "DataLoader.Train.batch_transform.0: MixupCutmix: mixup_alpha and cutmix_alpha" in error


def test_the_recipe_itself_is_right_and_only_what_the_mode_needs_is_built(repo, capsys):
    assert main(["-c", str(repo / DEIT)]) == 0
    wrong = "DataLoader.Train.dataset.transform_ops.3.config_str=rnd"
    assert main(["-c", str(repo / DEIT), "--mode", "eval", "-o", wrong]) == 0
    assert "the config is right" in capsys.readouterr().out


def test_a_transform_of_the_user_is_not_run(repo, capsys, tmp_path, monkeypatch):
    (tmp_path / "my_transforms.py").write_text(
        "from passl.registry import TRANSFORMS\n"
        "raise RuntimeError\n\n"
        "@TRANSFORMS.register()\n"
        "class Mine:\n"
        '    """Mine."""\n\n'
        "    def __init__(self) -> None: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    options = ["-o", "Global.imports=[my_transforms]"]
    options.append("DataLoader.Train.dataset.transform_ops.3={name: Mine}")
    assert main(["-c", str(repo / DEIT), *options]) == 0
    assert "the config is right" in capsys.readouterr().out
