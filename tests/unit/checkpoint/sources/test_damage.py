"""Whatever happens to a file, a sentence comes out: no other error, no crash, nothing endless."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from passl.checkpoint.files import write_arrays
from passl.checkpoint.sources import open_source, write_safetensors
from passl.errors import CheckpointError

REPO = Path(__file__).resolve().parents[4]
FILES = REPO / "tests" / "golden" / "torch_files"
NUM_CHANGES = 120


def originals(folder: Path) -> dict[str, bytes]:
    with np.load(FILES / "odd_expected.npz") as file:
        arrays = {name: file[name] for name in file}
    np.savez(folder / "stored.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    write_safetensors(folder / "x.safetensors", arrays, {"format": "pt"})
    write_arrays(folder / "x.pdparams", arrays)
    torch_files = ("odd_zip.pth", "odd_no_crc.pth", "odd_legacy.pth", "odd_training_legacy.pth")
    paths = [*sorted(folder.iterdir()), *(FILES / name for name in torch_files)]
    return {path.name: path.read_bytes() for path in paths}


def changed(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(data))
        kind = rng.random()
        if kind < 0.8:
            data[place] = rng.randrange(256)
        elif kind < 0.95:
            del data[place : place + rng.randrange(1, 9)]
        else:
            del data[place + 1 :]
    return bytes(data)


def test_only_sentences_come_out_of_changed_files(tmp_path):
    rng = random.Random(0)
    (tmp_path / "made").mkdir()
    sentences: list[str] = []
    for content in originals(tmp_path / "made").values():
        for _ in range(NUM_CHANGES):
            (tmp_path / "x").write_bytes(changed(content, rng))
            try:
                with open_source(tmp_path / "x") as source:
                    for name in source.names():
                        source.read(name)
            except CheckpointError as error:
                sentences.append(str(error))
    assert len(sentences) > NUM_CHANGES
    assert not [text for text in sentences if not text.startswith(f"{tmp_path / 'x'}: ")]


#: Writes a file of 20 GB (sparse) with one tensor of 19.5 GB and eight of 32 MB, and reads these
#: within 100 MB more than a bare interpreter needs.
_LARGE = """
import json, resource, struct, sys, zipfile, zlib
from pathlib import Path
import numpy as np
from passl.checkpoint.sources import open_source

kind, path = sys.argv[1], Path(sys.argv[2])
MB = 1 << 20
sizes = {"huge": 19_968 * MB, **{f"t{i}": 32 * MB for i in range(8)}}

def hole(file, size):
    file.seek(size - 1, 1)
    file.write(b"\\0")

def member(archive, name, head, size):
    info = zipfile.ZipInfo(name)
    info.compress_size = info.file_size = len(head) + size
    info.header_offset, info.CRC = archive.fp.tell(), 0
    if head and size == 32 * MB:
        info.CRC = zlib.crc32(bytes(size), zlib.crc32(head))
    archive.fp.write(info.FileHeader(zip64=True) + head)
    hole(archive.fp, size)
    archive.start_dir = archive.fp.tell()
    archive.filelist.append(info)
    archive.NameToInfo[name] = info

if kind == "safetensors":
    header, place = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        hole(file, place)
else:
    text = lambda word: b"X" + struct.pack("<I", len(word)) + word.encode()
    number = lambda n: b"\\x8a\\x08" + struct.pack("<q", n)
    code = b"\\x80\\x02}"
    with zipfile.ZipFile(path, "w") as archive:
        for name, size in sizes.items():
            if kind == "npz":
                fields = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size // 4},), }}"
                fields = fields.ljust(117).encode() + b"\\n"
                head = b"\\x93NUMPY\\x01\\x00" + struct.pack("<H", len(fields)) + fields
                member(archive, f"{name}.npy", head, size)
            else:
                member(archive, f"archive/data/{name}", b"", size)
                code += (
                    text(name) + b"ctorch._utils\\n_rebuild_tensor_v2\\n((" + text("storage")
                    + b"ctorch\\nFloatStorage\\n" + text(name) + text("cpu") + number(size // 4)
                    + b"tQK\\x00" + number(size // 4) + b"\\x85K\\x01\\x85\\x89}tRs"
                )
        if kind == "torch":
            archive.writestr("archive/data.pkl", code + b".")

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 100 * MB
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with open_source(path) as source:
    for name in source.names():
        if name != "huge":
            assert source.read(name).nbytes == 32 * MB
    assert source.shape("huge") == (19_968 * MB // 4,)
    try:
        source.read("huge")
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's limits of memory")
@pytest.mark.parametrize("kind", ["safetensors", "npz", "torch"])
def test_twenty_gigabytes_are_read_in_the_memory_of_one_tensor(tmp_path, kind):
    path = tmp_path / "x.weights"
    done = subprocess.run(
        [sys.executable, "-c", _LARGE, kind, str(path)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size > 20 * 10**9
    assert done.stdout.startswith(
        f"CheckpointError {path}: tensor 'huge': there is not enough memory to read it "
        "(a file of 19.8 GB)."
    )
