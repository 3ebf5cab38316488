"""The Tab key: what it offers, and that bash, zsh and fish offer it."""

from __future__ import annotations

import argparse
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from passl.cli.commands import COMMANDS
from passl.cli.completing import complete
from passl.cli.completion import main
from passl.config.shipped import shipped_configs
from passl.models import list_models

DIGITS = "ViT_micro_digits"


def words(line: str) -> list[str]:
    """What is offered at the end of a line."""
    return [word for word, _ in complete(line.split(" "))[0]]


# -- what is offered ---------------------------------------------------------------------------


def test_every_command_is_offered():
    assert set(words("passl ")) == {*COMMANDS, "--help", "--version"}
    assert words("passl tr") == ["train"]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda one: one.name)
def test_every_option_of_a_command_is_offered(command):
    expected = {
        max(action.option_strings, key=len)
        for action in command.build_parser()._actions
        if action.option_strings and action.help != argparse.SUPPRESS
    }
    assert set(words(f"{command.prog} --")) == expected
    assert words(f"passl {command.name} --") == words(f"{command.prog} --")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("passl-train -c ViT_base_patch16_384_c", ["ViT_base_patch16_384_cifar100_ft",
                                                   "ViT_base_patch16_384_cifar10_ft"]),
        ("passl new x --from quick", ["quickstart/ViT_micro_digits"]),
        ("passl config diff vit_micro_digits RESNET", ["ResNet50_resisc45_ft"]),
        ("passl-train -c X.yaml -o FP16.level=O", ["FP16.level=O0", "FP16.level=O1",
                                                   "FP16.level=O2"]),
        ("passl-train -c X.yaml -o Global.seed=1 Global.fine", ["Global.finetune=",
                                                               "Global.finetune_head="]),
        ("passl-train -o Global.save_in_background=", ["Global.save_in_background=true",
                                                       "Global.save_in_background=false"]),
        ("passl-train -c X.yaml -o Optimizer.name=Ad", ["Optimizer.name=Adafactor",
                                                        "Optimizer.name=AdamW",
                                                        "Optimizer.name=Adan"]),
        (f"passl-train -c {DIGITS} -o Loss.Tr", ["Loss.Train."]),
        (f"passl-train -c {DIGITS} -o Loss.Train.0.", ["Loss.Train.0.name=", "Loss.Train.0.weight=",
                                                       "Loss.Train.0.epsilon="]),
        (f"passl-sweep -c {DIGITS} --grid Global.seed=1,2 LRScheduler.warmup_p",
         ["LRScheduler.warmup_prefix="]),
        ("passl-sweep --random Global.finetune_", ["Global.finetune_head="]),
        ("passl config explain Optimizer.Lion.w", ["Optimizer.Lion.weight_decay"]),
        (f"passl config show -c {DIGITS} Global.print", ["Global.print_batch_step"]),
        ("passl-models sho", ["show"]),
        ("passl-models show ViT_G", ["ViT_G_patch14_224"]),
        ("passl-convert a b --model ViT_huge_patch14_3", ["ViT_huge_patch14_384"]),
        ("passl-convert a b --model ViT_base_patch16_224 -o class_n", ["class_num="]),
        ("passl-check --explain Lio", ["Lion"]),
        ("passl-export --format ", ["paddle", "onnx", "both"]),
        ("passl-visualize conf", ["confusion"]),
        ("passl-visualize attention --head-fusion ", ["mean", "max", "min"]),
        ("passl completion ", ["bash", "fish", "zsh"]),
        ("passl nonsense ", []),
        ("ls ", []),
    ],
)  # fmt: skip
def test_what_may_follow(line, offered):
    found = words(line)
    assert found == offered or set(found) == set(offered)


def test_with_a_config_the_arguments_are_those_of_its_components():
    with_config = words(f"passl-train -c {DIGITS} -o Optimizer.")
    assert "Optimizer.eps=" in with_config
    assert "Optimizer.momentum=" not in with_config
    assert "Optimizer.momentum=" in words("passl-train -o Optimizer.")
    assert "Optimizer.momentum=" in words("passl-train -c broken.yaml -o Optimizer.")


def test_configs_and_models_are_all_there():
    assert set(words("passl-train -c ")) == set(shipped_configs())
    assert set(list_models("*")) <= set(words("passl-models show "))


def test_the_shell_is_told_of_files_and_of_unfinished_words():
    assert complete(["passl-train", "-c", ""])[1].files
    assert complete(["passl-infer", ""])[1].files
    assert not complete(["passl-models", "show", ""])[1].files
    assert complete(["passl-train", "-o", "Glo"])[1].no_space
    assert not complete(["passl-train", "-o", "FP16.level="])[1].no_space


def test_bash_gets_only_what_follows_its_word_breaks(capsys):
    line = 'passl-train -c "ViT_micro_digits" -o FP16.level=O'
    assert main(["bash", "--breaks", " \t=:", "--line", line]) == 0
    assert capsys.readouterr().out.splitlines() == ["O0", "O1", "O2"]


def test_an_open_quote_is_no_obstacle(capsys):
    main(["bash", "--breaks", "=", "--line", "passl-train -c 'ResN"])
    assert capsys.readouterr().out.splitlines()[0].startswith("ResNet50_resisc45_ft")


# -- in the shells -----------------------------------------------------------------------------


@pytest.fixture
def shell_environment(user_environment, tmp_path) -> dict[str, str]:
    """``passl`` and ``passl-train`` in reach, also where PASSL is not installed."""
    for name, module in (("passl", "main"), ("passl-train", "train")):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            f"#!{sys.executable}\nimport sys\n"
            f"from passl.cli.{module} import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)
    (tmp_path / "local_config.yaml").touch()
    path = f"{tmp_path / 'bin'}{os.pathsep}{user_environment['PATH']}"
    home = {"HOME": str(tmp_path), "TERM": "dumb", "PS1": "READY> "}
    return {**user_environment, **home, "PATH": path}


def _needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


_ASK_BASH = r"""
source <(passl completion bash)
ask() {
    COMP_LINE=$1 COMP_POINT=${#1}
    COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
    _passl "${COMP_WORDS[0]}"
    printf '%s|' "${COMPREPLY[@]}"; echo
}
ask "passl-train -c local" passl-train -c local
ask "passl-train -c ResN" passl-train -c ResN
ask "passl-train -o FP16.level=" passl-train -o FP16.level =
ask "passl conf" passl conf
complete -p passl-eval
"""


def test_bash_offers_them(shell_environment, tmp_path):
    done = subprocess.run(
        [_needs("bash"), "--norc", "-c", _ASK_BASH],
        cwd=tmp_path, env=shell_environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "local_config.yaml|", "ResNet50_resisc45_ft|", "O0|O1|O2|", "config|",
        "complete -F _passl passl-eval",
    ]  # fmt: skip


def test_fish_offers_them(shell_environment, tmp_path):
    script = "passl completion fish | source; " + "; echo; ".join(
        f'complete -C "{line}"'
        for line in ("passl-train -c ResN", "passl-train -c local", "passl-train -o FP16.level=")
    )
    done = subprocess.run(
        [_needs("fish"), "--no-config", "-c", script],
        cwd=tmp_path, env=shell_environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stderr == ""
    names = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert names == [
        "ResNet50_resisc45_ft", "", "local_config.yaml", "",
        "FP16.level=O0", "FP16.level=O1", "FP16.level=O2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "setup"),
    [
        (["bash", "--norc", "--noprofile", "-i"], "source <(passl completion bash)"),
        (
            ["zsh", "-f", "-i"],
            "PS1='READY> '; autoload -Uz compinit; compinit -u -D; source <(passl completion zsh)",
        ),
    ],
    ids=["bash", "zsh"],
)
def test_a_person_at_the_keyboard_gets_them(argv, setup, shell_environment, tmp_path):
    _needs(argv[0])
    asked = "passl-train -c ResN\t-o Global.print_b\t7 --print-config | grep -e ships -e batch_step"
    asked += "; echo DO''NE\n"
    text = _type(argv, [f"{setup}; echo SET''UP\n", asked], shell_environment, tmp_path)
    assert "(the config ResNet50_resisc45_ft, which ships with PASSL)" in text
    assert "print_batch_step: 7" in text  # went on in the same word, behind the "="


def _type(argv: list[str], lines: list[str], environment: dict[str, str], folder: Path) -> str:
    """What an interactive shell shows while the lines are typed."""
    process, terminal = pty.fork()
    if process == 0:  # pragma: no cover - the shell
        os.chdir(folder)
        os.execvpe(argv[0], argv, environment)  # noqa: S606
    shown = ""
    try:
        for line, mark in zip(lines, ("SETUP", "DONE")):
            os.write(terminal, line.encode())
            shown += _read_until(terminal, mark)
    finally:
        os.close(terminal)
        os.waitpid(process, 0)
    return shown.replace("\r", "").replace("\n", "")


def _read_until(terminal: int, mark: str) -> str:
    text, end = "", time.monotonic() + 300
    while mark not in text and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            text += os.read(terminal, 4096).decode(errors="replace")
    return text
