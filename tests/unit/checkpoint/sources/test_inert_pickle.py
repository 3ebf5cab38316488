"""The machine that reads pickles without running them agrees with pickle, and never runs wild."""

from __future__ import annotations

import collections
import datetime
import io
import pickle
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from passl.checkpoint.sources import inert_pickle, open_source
from passl.checkpoint.sources.inert_pickle import Made, Name, read_pickle
from passl.checkpoint.sources.spans import Damage
from passl.errors import CheckpointError

PLAIN = {
    "numbers": [0, 1, -1, 255, 256, 65536, -(2**31), 2**62, -(2**70), 0.5, -1e300],
    "text": ["", "a", "größe", "x" * 300],
    "bytes": [b"", b"\x00\xff", b"y" * 300],
    "constants": (None, True, False),
    "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "nested": {"a": {"b": [{"c": ()}]}, 3: 4, None: 5, (1, "x"): 6},
    "ordered": collections.OrderedDict([("z", 1), ("a", 2)]),
    "many": list(range(3000)),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_data_is_what_pickle_would_make(protocol):
    data = PLAIN if protocol >= 3 else {k: v for k, v in PLAIN.items() if k != "bytes"}
    found = read_pickle(io.BytesIO(pickle.dumps(data, protocol))).value
    assert found == data
    assert list(found["ordered"]) == ["z", "a"]
    if protocol >= 4:
        assert read_pickle(io.BytesIO(pickle.dumps({1, 2}, protocol))).value == {1, 2}


def test_shared_and_circular_parts_stay_shared():
    shared: list[object] = []
    shared.append(shared)
    found = read_pickle(io.BytesIO(pickle.dumps([shared, shared]))).value
    assert found[0] is found[1]
    assert found[0][0] is found[0]


def test_objects_of_any_class_become_records():
    when = datetime.date(2020, 1, 2)
    found = read_pickle(io.BytesIO(pickle.dumps(when, 2)))
    assert isinstance(found.value, Made)
    assert found.value.maker == Name("datetime", "date")
    assert found.names[Name("datetime", "date")]


# -- files that mean harm --------------------------------------------------------------------------


def _refusal(path: Path, instructions: bytes) -> str:
    path.write_bytes(b"\x80\x02" + instructions)
    started = time.process_time()  # of the processor: the clock also counts other programs
    with pytest.raises(CheckpointError) as caught:
        open_source(path)
    assert time.process_time() - started < 20
    return str(caught.value).removeprefix(f"{path}: ")


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


@pytest.mark.parametrize(
    "name",
    [
        "os\nsystem",
        "posix\nsystem",
        "nt\nsystem",
        "subprocess\nPopen",
        "builtins\neval",
        "__builtin__\nexec",
        "builtins\ngetattr",
        "builtins\n__import__",
        "importlib\nimport_module",
        "runpy\nrun_path",
        "types\nFunctionType",
        "operator\nattrgetter",
        "shutil\nrmtree",
        "torch\nload",
        "torch.hub\nload",
        "numpy\nload",
        "somebody.utils\nrun_it",
    ],
)
def test_a_call_of_anything_that_is_no_data_is_refused(tmp_path, name):
    call = b"}" + _text("x") + b"c" + name.encode() + b"\n(" + _text("y") + b"tRs."
    text = _refusal(tmp_path / "x.pth", call)
    assert text.startswith(f"refused, because loading it would run {name.replace(chr(10), '.')}")
    assert "Nothing was run." in text


def test_the_old_and_the_new_ways_to_call_are_known_too(tmp_path):
    for call in (
        b"(" + _text("y") + b"ios\nsystem\n.",
        b"(cos\nsystem\n" + _text("y") + b"o.",
        b"cos\nsystem\n)\x81.",
        _text("os") + _text("system") + b"\x93" + _text("y") + b"\x85R.",
        b"cfunctools\npartial\n(cos\nsystem\n" + _text("y") + b"tR.",
    ):
        assert "os.system" in _refusal(tmp_path / "x.pth", call)


def test_a_dangerous_name_is_refused_even_if_it_is_not_called(tmp_path):
    text = _refusal(tmp_path / "x.pth", b"}" + _text("x") + b"cos\nsystem\ns.")
    assert text.startswith("refused, because loading it would hand out os.system")


def test_bystanders_of_other_packages_are_no_reason_to_refuse(tmp_path):
    class_call = b"cyacs.config\nCfgNode\n)\x81" + b"}" + _text("a") + b"K\x01sb"
    (tmp_path / "x.pkl").write_bytes(
        b"\x80\x02}"
        + (_text("cfg") + class_call + b"s")
        + (_text("model") + pickle.dumps({"w": np.ones(2, np.float32)}, 2)[2:-1] + b"s.")
    )
    with open_source(tmp_path / "x.pkl") as source:
        assert source.names() == ["w"]
        assert source.ignored == {"cfg": "yacs.config.CfgNode"}


@pytest.mark.parametrize(
    ("instructions", "reason"),
    [
        (b"Nr\xff\xff\xff\x7f.", "holds "),  # an index of the memo that CPython would make room for
        (b"X\xff\xff\xff\xff.", "ends too early"),
        (b"X\x10\x00\x00\x00abc", "ends too early"),
        (b"\x8a\xff" + b"\x7f" * 255 + b"\x8b\x00\x10\x00\x00" + b"\x7f" * 4096, "absurd number"),
        (b"I" + b"9" * 70_000 + b"\n.", "ends too early"),
        (b"}}K\x01s.", "uses a dict as a key"),
        (b"})\x85\x85K\x01s.", "uses a tuple as a key"),
        (b"}\x8a\x0a" + b"\x01" * 10 + b"K\x01s.", "uses a int as a key"),
        (b"0.", "do not fit together"),
        (b"t.", "do not fit together"),
        (b"(K\x01e.", "do not fit together"),
        (b"h\x05.", "an entry that is not there"),
        (b"K\x01K\x02R.", "calls something that has no name"),
        (b"cos\nsystem\n}b.", "changes os.system"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"\x97.", "instruction NEXT_BUFFER"),
        (b"\xff.", "is no pickle"),
        (b"}", "ends too early"),
    ],
    ids=lambda value: value if isinstance(value, str) else "code",
)
def test_absurd_instructions_are_refused_at_once(tmp_path, instructions, reason):
    assert reason in _refusal(tmp_path / "x.pth", instructions)


@pytest.mark.parametrize("endless", [b"}", b"(", b"K\x01a", b"N2", b"N0"])
def test_endless_instructions_end(tmp_path, monkeypatch, endless):
    monkeypatch.setattr(inert_pickle, "_MAX_INSTRUCTIONS", 100_000)
    assert "millions of entries" in _refusal(tmp_path / "x.pth", b"]" + endless * 200_000 + b".")


def test_ten_million_entries_are_refused_in_seconds(tmp_path):
    assert "millions of entries" in _refusal(tmp_path / "x.pth", b"](" + b"K\x01" * 10**7 + b"e.")


def test_copies_of_copies_do_not_fill_memory(tmp_path):
    many = b"}(" + b"".join(_text(f"{i}") + b"N" for i in range(10_000)) + b"uq\x00"
    copies = b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R" * 10_000
    assert "too much beside its tensors" in _refusal(tmp_path / "x.pth", many + copies + b".")


def test_a_circle_or_endless_nesting_of_dictionaries_ends(tmp_path):
    circle: dict[str, object] = {}
    circle["model"] = circle
    assert "no tensors by name" in _refusal(tmp_path / "x.pth", pickle.dumps(circle, 2)[2:])
    circle["w"] = np.ones(2)
    assert "nested without end" in _refusal(tmp_path / "x.pth", pickle.dumps(circle, 2)[2:])
    deep = b"}" + (_text("a") + b"}") * 50_000 + b"s" * 50_000 + b"."
    assert "no tensors by name" in _refusal(tmp_path / "x.pth", deep)


def test_an_error_of_the_machine_is_damage():
    with pytest.raises(Damage):
        read_pickle(io.BytesIO(b"\x80\x02"))
