"""What the Tab key may offer at the end of a command line, from the commands' own parsers.

    words, hints = complete(["passl-train", "-c", "ViT_base"])

Nothing of the commands is repeated here: options, subcommands and choices are read from their
parsers, keys and components from the registries, configs from where they ship. A new option is
completed from the day it exists.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Optional

from passl.cli.commands import COMMANDS, Command
from passl.cli.completing_keys import (
    component_names,
    explained_keys,
    key_words,
    keys_of,
    model_names,
)
from passl.config.shipped import shipped_configs

__all__ = ["Hints", "Word", "complete"]

#: ``(text, what it is)``.
Word = tuple[str, str]


@dataclass(frozen=True)
class Hints:
    """What the shell should do besides offering the words.

    Attributes:
        files: offer files as well.
        no_space: go on in the same word after it.
    """

    files: bool = False
    no_space: bool = False


@dataclass
class _Line:
    """A command line up to the word under the cursor.

    Attributes:
        parser: of the command or subcommand.
        given: ``dest -> values`` so far.
        option: whose value the word is, if it is one's.
        positional: how many words without an option came before.
    """

    parser: argparse.ArgumentParser
    given: dict[str, list[str]] = field(default_factory=dict)
    option: Optional[argparse.Action] = None
    positional: int = 0


def complete(words: Sequence[str]) -> tuple[list[Word], Hints]:
    """Words that may stand in place of the last one, and hints.

    Args:
        words: of the command line up to the cursor; the last is the unfinished one, perhaps empty.
    """
    current = words[-1] if words else ""
    start = next((place for place, word in enumerate(words) if _is_ours(word)), len(words))
    name, rest = PurePath(words[start]).name if start < len(words) else "", words[start + 1 :]
    if name == "passl" and len(rest) == 1:
        offered = [(one.name, one.summary) for one in COMMANDS.values()]
        offered += [("--help", "list the commands"), ("--version", "of PASSL, Python and Paddle")]
        return _beginning_with(current, offered), Hints()
    if name == "passl" and rest:
        name, rest = rest[0], rest[1:]
    command = COMMANDS.get(name.removeprefix("passl-"))
    if command is None or not rest:
        return [], Hints()
    return _offer(command, _read(command.build_parser(), rest[:-1]), current)


def _is_ours(word: str) -> bool:
    name = PurePath(word).name
    return name == "passl" or name.removeprefix("passl-") in COMMANDS


def _read(parser: argparse.ArgumentParser, words: Iterable[str]) -> _Line:
    """Follow the words as argparse would."""
    line = _Line(parser)
    taken = 0
    for word in words:
        option = line.parser._option_string_actions.get(word)
        if option is not None:
            line.option, taken = (option if option.nargs != 0 else None), 0
        elif line.option is not None:
            line.given.setdefault(line.option.dest, []).append(word)
            taken += 1
            if not _takes_more(line.option, taken):
                line.option = None
        elif not word.startswith("-"):
            inner = _subparsers(line.parser).get(word) if line.positional == 0 else None
            if inner is not None:
                line = _Line(inner, line.given)
            else:
                line.positional += 1
    return line


def _takes_more(option: argparse.Action, taken: int) -> bool:
    if option.nargs in ("+", "*", argparse.REMAINDER):
        return True
    return taken < (option.nargs if isinstance(option.nargs, int) else 1)


def _offer(command: Command, line: _Line, current: str) -> tuple[list[Word], Hints]:
    if current.startswith("-"):
        return _beginning_with(current, _options(line.parser)), Hints()
    if line.option is not None:
        return _values(command, line, line.option, current)
    inner = _subparsers(line.parser)
    if inner and line.positional == 0:
        return _beginning_with(current, _described(line.parser)), Hints()
    positional = _positional(line.parser, line.positional)
    if positional is None:
        return _beginning_with(current, _options(line.parser)), Hints()
    return _values(command, line, positional, current)


def _values(
    command: Command, line: _Line, action: argparse.Action, current: str
) -> tuple[list[Word], Hints]:
    """What may be given to an option or in a place."""
    if action.choices is not None:
        return _beginning_with(current, [(str(one), "") for one in action.choices if one]), Hints()
    what = f"{command.name}.{action.dest}"
    if action.dest in ("config", "base") or what in ("config.first", "config.second"):
        return _beginning_with(current, _configs()), Hints(files=True)
    if what == "config.pattern":
        return _beginning_with(current, _configs()), Hints()
    if action.dest == "override" and command.name == "convert":
        return _arguments_of_model(current, line.given.get("model", []))
    if action.dest == "override" or what in ("sweep.grid", "sweep.random"):
        named = line.given.get("config") or line.given.get("base") or [""]
        return _keys_of_config(current, named[-1])
    if what == "config.keys":
        explain = line.parser.prog.endswith("explain")
        config = line.given.get("config", [""])[-1]
        words = key_words(current, explained_keys() if explain else keys_of(config), end="")
        return words, Hints(no_space=any(word.endswith(".") for word, _ in words))
    if what in ("models.pattern", "models.name", "convert.model"):
        extra = [("show", "one model")] if what == "models.pattern" else []
        return _beginning_with(current, [*extra, *model_names()]), Hints()
    if what == "check.explain":
        return _beginning_with(current, component_names()), Hints()
    return [], Hints(files=action.nargs != 0)


def _keys_of_config(current: str, config: str) -> tuple[list[Word], Hints]:
    words = key_words(current, keys_of(config))
    return words, Hints(no_space=any(word.endswith((".", "=")) for word, _ in words))


def _arguments_of_model(current: str, names: Sequence[str]) -> tuple[list[Word], Hints]:
    """Arguments without the section's name, as ``passl-convert`` takes them."""
    words = key_words(f"Model.{current}", keys_of("", "Model", names))
    found = [(word.removeprefix("Model."), text) for word, text in words]
    return found, Hints(no_space=any(word.endswith("=") for word, _ in found))


def _configs() -> list[Word]:
    return [(name, "ships with PASSL") for name in shipped_configs()]


# -- parsers ---------------------------------------------------------------------------------------


def _options(parser: argparse.ArgumentParser) -> list[Word]:
    """Long names first, where there is one; hidden options stay so."""
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    return [
        (max(action.option_strings, key=len), _text(action.help))
        for action in shown
        if action.option_strings
    ]


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _described(parser: argparse.ArgumentParser) -> list[Word]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return [(one.dest, _text(one.help)) for one in action._choices_actions]
    return []


def _positional(parser: argparse.ArgumentParser, place: int) -> Optional[argparse.Action]:
    """The argument without an option in that place; a repeated one takes all that follow."""
    actions = [action for action in parser._actions if not action.option_strings]
    for number, action in enumerate(actions):
        if number == place or action.nargs in ("+", "*", argparse.REMAINDER):
            return action
    return None


def _text(help_text: Optional[str]) -> str:
    first = " ".join((help_text or "").split()).partition("; ")[0]
    return first.replace("%(default)s", "default").replace("%%", "%")


def _beginning_with(start: str, words: Sequence[Word]) -> list[Word]:
    """The words that begin so; whatever their case, where none begins exactly so."""
    exact = [word for word in words if word[0].startswith(start)]
    return exact or [word for word in words if word[0].lower().startswith(start.lower())]
