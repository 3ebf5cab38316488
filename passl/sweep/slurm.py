"""A sweep as a Slurm job array: one task a run, requeued until the run is done.

    <sweep>/slurm/001.json      the runs of the first array, by their number
    <sweep>/slurm/001.sbatch    what is submitted
    <sweep>/slurm/001-7.out     what the seventh of them printed

Every array has files of its own, so that a changed grid does not change the numbers of tasks that
wait in the queue.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from passl.errors import ConfigError, PasslError
from passl.json_text import from_json
from passl.sweep.records import Record, read_record

__all__ = ["read_task", "submit", "write_array"]

_SCRIPT = """\
#!/usr/bin/env bash
# {count} runs of a sweep, one a task. Written by passl-sweep; submit it with
#   sbatch {path}
#SBATCH --job-name=passl-sweep
#SBATCH --array={array}
#SBATCH --output={output}
#SBATCH --open-mode=append
#SBATCH --requeue
# One process a task; Slurm refuses --gpus-per-task unless it is told how many there are.
#SBATCH --ntasks=1
# Two minutes before the time is up, to this shell, which has the run save and stop.
#SBATCH --signal=B:USR1@120
{options}set -euo pipefail
cd -- {folder}

# Only what Slurm itself has not ended goes back into the queue: scancel means it.
only=Incomplete
trap 'only=; kill -TERM "${{!:-}}" 2>/dev/null || true' USR1
trap 'kill -TERM "${{!:-}}" 2>/dev/null || true' TERM
{command} --task "$SLURM_ARRAY_TASK_ID" --tasks {tasks} &
run=$!

status=0
wait "$run" || status=$?
while kill -0 "$run" 2>/dev/null; do
    status=0
    wait "$run" || status=$?
done
# A signal ends a wait with a number of its own, and the run may have ended just then.
if [[ $status -gt 128 ]]; then
    ended=0
    wait "$run" 2>/dev/null || ended=$?
    [[ $ended -eq 127 ]] || status=$ended
fi

# 75: stopped with the state saved; back into the queue to continue.
if [[ $status -eq 75 ]]; then
    scontrol requeue ${{only:+"$only"}} "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
    exit 0
fi
exit "$status"
"""


def write_array(
    records: Sequence[Record],
    folder: Path,
    *,
    command: Sequence[str],
    options: Sequence[str],
    at_once: Optional[int],
) -> Path:
    """Write the script for these runs; nothing is submitted.

    Args:
        records: runs that are not done.
        folder: of the sweep.
        command: how ``passl-sweep`` is started on the machines of the cluster.
        options: for Slurm, such as ``--time=10:00:00``, a line each.
        at_once: tasks that run at a time; None: as Slurm likes.

    Raises:
        ConfigError: an option that is none.
    """
    wrong = [text for text in options if not text.startswith("-") or "\n" in text]
    if wrong:
        raise ConfigError([
            f"--sbatch {text!r}: not an option of sbatch; write --sbatch=--time=10:00:00"
            for text in wrong
        ])
    place = folder.absolute() / "slurm"
    place.mkdir(parents=True, exist_ok=True)
    taken = [int(path.stem) for path in place.glob("*.json") if path.stem.isdigit()]
    number = f"{max(taken, default=0) + 1:03d}"
    tasks, script = place / f"{number}.json", place / f"{number}.sbatch"
    names = [record.name for record in records]
    tasks.write_text(json.dumps(names, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    # Slurm reads its own lines without a shell's quoting, but for double quotes.
    script.write_text(
        _SCRIPT.format(
            count=len(names),
            path=shlex.quote(str(script)),
            array=f"1-{len(names)}" + (f"%{at_once}" if at_once else ""),
            output=f'"{place}/{number}-%a.out"',
            options="".join(f"#SBATCH {_quoted(text)}\n" for text in options),
            folder=shlex.quote(str(Path.cwd())),
            command=shlex.join(command),
            tasks=shlex.quote(str(tasks)),
        ),
        encoding="utf-8",
    )
    script.chmod(0o755)
    return script


def _quoted(option: str) -> str:
    """``--comment=two words`` as Slurm reads it in a script: the value in double quotes."""
    name, equals, value = option.partition("=")
    if not equals or not name.startswith("--") or not re.search(r"\s", value) or '"' in value:
        return option  # as it is: -p gpu, or with quotes of the user's own
    return f'{name}="{value}"'


def read_task(tasks: Path, number: int) -> Record:
    """The run that a task of an array is to make.

    Raises:
        ConfigError: there is no such task, or no record of its run.
    """
    try:
        names = from_json(tasks.read_text(encoding="utf-8"))
        name = str(names[number - 1]) if 0 < number <= len(names) else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{tasks} cannot be read: {error}") from error
    if name is None:
        raise ConfigError(f"{tasks} lists {len(names)} runs, 1 to {len(names)}; not {number}")
    record = read_record(tasks.absolute().parents[1] / name)
    if record is None:
        raise ConfigError(f"{tasks.absolute().parents[1] / name}: no record of this run there")
    return record


def submit(script: Path) -> str:
    """Submit the script; returns what ``sbatch`` said.

    Raises:
        ConfigError: there is no ``sbatch`` here.
        PasslError: it refused.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise ConfigError(
            f"there is no sbatch on this machine; submit {script} where there is one"
        )
    done = subprocess.run(  # noqa: S603 (a file that we wrote)
        [sbatch, str(script)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise PasslError(f"sbatch {script} ended with {done.returncode}: {said}")
    return done.stdout.strip()
