"""``passl completion``: scripts that make the Tab key of a shell know the commands.

The scripts only ask: at each Tab ``passl completion SHELL --words ...`` (``--line`` for bash)
prints what may follow, a word a line with its meaning behind a tab, then ``:files``, ``:nospace``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import Optional

from passl.cli.commands import COMMANDS
from passl.cli.common import command_parser, run_command
from passl.cli.completing import complete
from passl.errors import EXIT_OK

__all__ = ["build_parser", "main"]

_EPILOG = """examples:
  source <(passl completion bash)                 now; in ~/.bashrc: always
  source <(passl completion zsh)                  the same, after compinit in ~/.zshrc
  passl completion fish > ~/.config/fish/completions/passl.fish

Commands, options, configs that ship, models, and with -o the keys and values of the config that -c
names are completed; elsewhere files.
"""

_BASH = r"""# Completion of PASSL's commands in bash: source <(passl completion bash)
_passl() {
    local line files= passl=passl
    [[ $1 == */* && -x ${1%/*}/passl ]] && passl=${1%/*}/passl
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :files) files=1 ;;
            :nospace) compopt -o nospace 2>/dev/null ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("$passl" completion bash --breaks "$COMP_WORDBREAKS" \
        --line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    if [[ $files ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}
complete -F _passl @NAMES@
"""

_ZSH = r"""#compdef @NAMES@
# Completion of PASSL's commands in zsh: source <(passl completion zsh), after compinit.
_passl() {
    local line files= passl=passl
    local -a found end
    [[ $words[1] == */* && -x ${words[1]:h}/passl ]] && passl=${words[1]:h}/passl
    while IFS= read -r line; do
        case $line in
            (:files) files=1 ;;
            (:nospace) end=(-S '') ;;
            (*) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        esac
    done < <("$passl" completion zsh --words "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
    (( $#found )) && _describe PASSL found "${end[@]}"
    [[ -n $files ]] && _files
    return 0
}
if [[ $funcstack[1] == _passl ]]; then
    _passl "$@"
else
    compdef _passl @NAMES@
fi
"""

_FISH = r"""# Completion of PASSL's commands in fish: passl completion fish | source
function __passl_complete
    set -l words (commandline -opc)
    set -l now (commandline -ct)
    set -l passl passl
    if string match -q '*/*' -- $words[1]; and test -x (dirname -- $words[1])/passl
        set passl (dirname -- $words[1])/passl
    end
    for line in ($passl completion fish --words $words "$now" 2>/dev/null)
        switch $line
            case ':files'
                __fish_complete_path "$now"
            case ':nospace'
            case '*'
                echo $line
        end
    end
end
for name in @NAMES@
    complete -c $name -f -a '(__passl_complete)'
end
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # What is to be completed may be anything, so it is taken before argparse looks at it.
    if "--words" in arguments:
        place = arguments.index("--words")
        _print_words(arguments[place + 1 :])
        return EXIT_OK
    if "--line" in arguments[:-1]:
        place = arguments.index("--line")
        breaks = arguments[place - 1] if "--breaks" in arguments[:place] else ""
        _print_words(_split(arguments[place + 1]), breaks)
        return EXIT_OK
    return run_command(build_parser(), _print_script, argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "passl completion", "Print a script that completes PASSL's commands in a shell.", _EPILOG
    )
    parser.add_argument("shell", choices=sorted(_SCRIPTS), help="whose script")
    return parser


def _print_script(arguments: argparse.Namespace) -> int:
    names = ["passl", *(command.prog for command in COMMANDS.values() if command.script)]
    print(_SCRIPTS[arguments.shell].replace("@NAMES@", " ".join(names)), end="")
    return EXIT_OK


def _print_words(words: list[str], breaks: str = "") -> None:
    """Print what may stand in place of the last word.

    Args:
        words: of the line.
        breaks: characters that bash begins a new word after: what is before them stays.
    """
    found, hints = complete(words)
    current = words[-1] if words else ""
    kept = max((current.rfind(sign) + 1 for sign in breaks if sign in "=:"), default=0)
    for word, meaning in found:
        print(f"{word[kept:]}\t{meaning}" if meaning else word[kept:])
    if hints.files:
        print(":files")
    if hints.no_space:
        print(":nospace")


def _split(line: str) -> list[str]:
    """The words of an unfinished line; a quote that is still open is closed."""
    for ending in ("", "'", '"'):
        try:
            words = shlex.split(line + ending)
        except ValueError:
            continue
        return words if ending or (line and not line[-1].isspace()) else [*words, ""]
    return line.split(" ")


if __name__ == "__main__":
    raise SystemExit(main())
