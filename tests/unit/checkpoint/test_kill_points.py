"""SIGKILL at every single step of a write: what can be seen afterwards is whole, every time."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Forks a child for each point; the child kills itself at its n-th change of the file system, just
# before it and (for fsync, the only one that Python's audit events leave out) also after it.
_SCRIPT = """
import json, os, shutil, signal, sys
import numpy as np
from passl.checkpoint.disk import remove_tree
from passl.checkpoint.files import read_arrays
from passl.checkpoint.manifest import read_json
from passl.checkpoint.resolve import resolve_checkpoint
from passl.checkpoint.store import CheckpointStore
from pathlib import Path

root, mode = Path(sys.argv[1]), sys.argv[2]
CHANGES = {"os.mkdir", "os.rename", "os.symlink", "os.remove", "os.rmdir", "os.truncate"}

def parts(value):
    weights = {str(i): np.full(1_100_000 if i == 0 else 10, value, np.float32) for i in range(3)}
    return {"model.pdparams": weights, "optimizer.pdopt": {"m": np.full(5, value, np.float32)},
            "ema.pdparams": {"w": np.full(5, value, np.float32)}, "state.json": {"value": value}}

def earlier(store):
    store.prepare()
    store.save(1, parts(1), links=("latest", "best"))
    store.save(2, parts(2), links=("latest",))
    store.save(3, parts(3), links=("latest",))

def write(store):
    # "replacing": a step that is there already; "new": also prunes; "best": moves both links.
    step, links = {"replacing": (3, ["latest"]), "new": (4, ["latest"]),
                   "best": (4, ["latest", "best"])}[mode]
    store.save(step, parts(9), links=links)

def kill_at(number):
    seen = 0
    def count():
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
    def audit(event, arguments):
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            count()
    fsync = os.fsync
    def counting_fsync(handle):
        count()
        fsync(handle)
        count()
    os.fsync = counting_fsync
    sys.addaudithook(audit)

def check(folder, number):
    store = CheckpointStore(folder)
    newest = store.latest()
    assert store.skipped == [], store.skipped
    store.prepare()
    after = store.latest()
    # Between the two renames of a replacement the step is hidden, until it is tidied.
    assert newest == after or mode == "replacing", "tidying changed what is the newest"
    assert store.skipped == []
    assert not [p.name for p in store.folder.iterdir() if p.name.startswith(".")]
    for path in store.folder.iterdir():
        store.verify(path)
        value = read_json(path / "state.json")["value"]
        for name in ("model.pdparams", "optimizer.pdopt", "ema.pdparams"):
            assert all((array == value).all() for array in read_arrays(path / name).values())
    value = read_json(after / "state.json")["value"]
    assert value in (3, 9)
    for link in ("latest", "best"):
        assert resolve_checkpoint(folder / link).folder in list(store.folder.iterdir()), link
    best = read_json(folder / "best" / "state.json")["value"]
    assert best in ((1, 9) if mode == "best" else (1,))
    if number % 10 == 0:
        store.save(5, parts(5))
        store.verify(folder / "latest")
    store.close()
    return value

first = CheckpointStore(root / "first", keep_latest=2)
earlier(first)
first.close()
found = []
for number in range(1, 1000):
    folder = root / str(number)
    shutil.copytree(first.run_dir, folder, symlinks=True)
    store = CheckpointStore(folder, keep_latest=2)
    store.prepare()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            kill_at(number)
            write(store)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    store.close()
    found.append([number, status, check(folder, number)])
    remove_tree(folder)
    if status != -signal.SIGKILL:
        break
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    "mode",
    [
        "best",
        pytest.param("new", marks=pytest.mark.slow),
        pytest.param("replacing", marks=pytest.mark.slow),
    ],
)
def test_a_kill_at_any_step_of_a_write_leaves_only_whole_checkpoints(tmp_path, mode):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path), mode],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    *killed, (_, last_status, last_value) = found
    assert (last_status, last_value) == (0, 9), "the last one was not killed"
    assert all(status == -9 for _, status, _ in killed)
    assert len(killed) > 30, "there are more steps than that"
    values = [value for _, _, value in killed]
    assert values == sorted(values), "once the new one is there it stays"
    assert {3, 9} == set(values)
