"""Settings that suit the machine, say what they are, and leave the user's choice alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest

from passl import runtime
from passl.errors import ConfigError

AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx avx2 sse4a\n"
AMD_WITH_AVX512 = "vendor_id\t: AuthenticAMD\nflags\t\t: avx2 avx512f avx512dq avx512bw avx512vl\n"
AMD_WITHOUT_AVX2 = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx avx2x sse4a\n"
INTEL = "vendor_id\t: GenuineIntel\nflags\t\t: fpu avx avx2 avx512f\n"


def apply(
    environ: dict[str, str], num_threads: Optional[int] = None, device: str = "cpu"
) -> runtime.RuntimeSettings:
    return runtime._apply(num_threads, device, environ, None)


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "available_cores", lambda: 4)
    monkeypatch.setattr(runtime, "_vectors_denied_by_mkl", lambda: None)
    monkeypatch.setattr(runtime, "_glibc", lambda: None)


def test_a_free_cpu_gets_all_cores_and_no_stride_kernels() -> None:
    environ: dict[str, str] = {}
    settings = apply(environ)
    assert environ == {"OMP_NUM_THREADS": "4", "FLAGS_use_stride_kernel": "0"}
    assert settings.num_threads == 4
    assert (
        settings.describe() == "CPU: 4 threads, stride kernels off; PASSL_TUNE=0 switches this off"
    )


def test_what_the_user_set_stands_and_is_said() -> None:
    environ = {"OMP_NUM_THREADS": "3", "FLAGS_use_stride_kernel": "true", "MALLOC_ARENA_MAX": "1"}
    before = dict(environ)
    settings = apply(environ)
    assert environ == before
    assert settings.num_threads == 3
    assert settings.describe() == (
        "CPU: 3 threads (yours), stride kernels on (yours), memory settings (yours); "
        "PASSL_TUNE=0 switches this off"
    )


def test_the_number_in_the_config_outranks_the_environment() -> None:
    environ = {"OMP_NUM_THREADS": "3"}
    assert apply(environ, num_threads=2).num_threads == 2
    assert environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(("ranks", "threads"), [("2", 2), ("3", 1), ("8", 1)])
def test_ranks_on_one_machine_share_its_cores(ranks: str, threads: int) -> None:
    # The launcher imports Paddle, which writes OMP_NUM_THREADS=1 for its children to inherit.
    environ = {"PADDLE_LOCAL_SIZE": ranks, "PADDLE_TRAINER_ID": "0", "OMP_NUM_THREADS": "1"}
    assert apply(environ).num_threads == threads


def test_a_single_process_told_to_use_one_thread_does() -> None:
    assert apply({"OMP_NUM_THREADS": "1"}).num_threads == 1


@pytest.mark.parametrize("text", ["", "many", "0", "-2"])
def test_a_thread_count_that_is_none_is_replaced(text: str) -> None:
    assert apply({"OMP_NUM_THREADS": text}).num_threads == 4


@pytest.mark.parametrize("word", ["0", "off", "none", "False"])
def test_one_variable_switches_all_of_it_off(word: str) -> None:
    environ = {"PASSL_TUNE": word}
    settings = apply(environ)
    assert environ == {"PASSL_TUNE": word}
    assert settings.num_threads is None
    assert settings.describe() == "CPU: Paddle's own settings (PASSL_TUNE=0)"


def test_single_settings_can_be_chosen() -> None:
    environ = {"PASSL_TUNE": "stride, malloc"}
    apply(environ)
    assert environ == {"PASSL_TUNE": "stride, malloc", "FLAGS_use_stride_kernel": "0"}


def test_a_misspelled_setting_is_an_error_that_names_the_right_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        apply({"PASSL_TUNE": "threads,strides"})
    assert str(caught.value) == (
        "PASSL_TUNE=threads,strides: strides is not a setting; write 0, 1, or some of "
        "threads,mkl,stride,malloc"
    )


def test_a_thread_count_below_one_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"Global\.num_threads must be 1 or more, or null; got 0"):
        runtime.prepare(0)


def test_an_accelerator_is_left_to_paddle() -> None:
    environ: dict[str, str] = {}
    assert apply(environ, device="gpu").describe() == "Accelerator: Paddle's own settings"
    assert environ == {}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (AMD, "AVX2"),
        (AMD_WITH_AVX512, "AVX-512"),
        (AMD_WITHOUT_AVX2, None),
        (INTEL, None),
        ("", None),
    ],
)
def test_only_an_amd_cpu_with_avx2_needs_mkl_told(
    text: str, wanted: Optional[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    (tmp_path / "cpuinfo").write_text(text)
    assert runtime._vectors_denied_by_mkl(tmp_path / "cpuinfo") == wanted
    assert runtime._vectors_denied_by_mkl(tmp_path / "nothing") is None


@pytest.mark.parametrize(("vectors", "code"), [("AVX2", "5"), ("AVX-512", "7")])
def test_mkl_is_told_on_amd(vectors: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_vectors_denied_by_mkl", lambda: vectors)
    environ: dict[str, str] = {}
    settings = apply(environ)
    assert environ["MKL_DEBUG_CPU_TYPE"] == code
    assert f"{vectors} code of MKL" in settings.describe()
    environ = {"MKL_DEBUG_CPU_TYPE": "4"}
    apply(environ)
    assert environ["MKL_DEBUG_CPU_TYPE"] == "4"


class _Libc:
    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.calls: list[tuple[int, int]] = []

    def mallopt(self, parameter: int, value: int) -> int:
        self.calls.append((parameter, value))
        return self.answer


def test_glibc_is_told_to_keep_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    libc = _Libc(1)
    monkeypatch.setattr(runtime, "_glibc", lambda: libc)
    assert "large allocations kept" in apply({}).describe()
    assert dict(libc.calls) == {-4: 0, -1: 2**31 - 1, -2: 64 * 2**20}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MALLOC_MMAP_THRESHOLD_", "1"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=1"),
        ("LD_PRELOAD", "libjemalloc.so.2"),
    ],
)
def test_another_allocator_is_left_alone(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    libc = _Libc(1)
    monkeypatch.setattr(runtime, "_glibc", lambda: libc)
    settings = apply({variable: value})
    assert libc.calls == []
    assert settings.kept


def test_blocks_of_images_are_kept_on_any_device_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    libc = _Libc(1)
    monkeypatch.setattr(runtime, "_glibc", lambda: libc)
    for environ in ({"MALLOC_TRIM_THRESHOLD_": "1"}, {"PASSL_TUNE": "0"}, {"PASSL_TUNE": "mkl"}):
        assert not runtime.keep_image_blocks(environ)
    assert libc.calls == []
    assert runtime.keep_image_blocks({})
    assert dict(libc.calls) == {-3: 32 * 2**20, -1: 2**31 - 1}


def test_a_refusal_of_the_c_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_glibc", lambda: _Libc(0))
    assert "memory settings refused by the C library" in apply({}).describe()


def _machine(root: Path, siblings: list[str]) -> None:
    for cpu, text in enumerate(siblings):
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(text + "\n")


def _cgroup(root: Path, line: str, files: dict[str, str]) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line + "\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    return tmp_path


def test_hyper_threads_of_a_core_count_once(eight_cpus: Path) -> None:
    _machine(eight_cpus, ["0,4", "1,5", "2,6", "3,7"] * 2)
    assert runtime.available_cores(eight_cpus) == 4


def test_an_unknown_topology_counts_each_cpu(eight_cpus: Path) -> None:
    assert runtime.available_cores(eight_cpus) == 8


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "350000 100000"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {}, 8),
        ("4:cpu,cpuacct:/job", {"cpu/job/cpu.cfs_quota_us": "200000",
                                "cpu/job/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("4:memory:/", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)
def test_a_quota_of_the_container_limits_the_cores(
    line: str, files: dict[str, str], cores: int, eight_cpus: Path
) -> None:
    _cgroup(eight_cpus, line, files)
    assert runtime.available_cores(eight_cpus) == cores


class _Paddle:
    """As much of an imported Paddle as the settings touch."""

    def __init__(self) -> None:
        self.flags: dict[str, Any] = {}
        self.threads = 1
        self.base = self
        self.core = self

    def set_flags(self, flags: dict[str, Any]) -> None:
        self.flags.update(flags)

    def set_num_threads(self, number: int) -> None:
        self.threads = number


def test_after_the_import_paddle_itself_is_told() -> None:
    paddle = _Paddle()
    # Its import wrote the 1.
    settings = runtime._apply(None, "cpu", {"OMP_NUM_THREADS": "1"}, paddle)  # type: ignore[arg-type]
    assert (paddle.threads, paddle.flags) == (4, {"FLAGS_use_stride_kernel": 0})
    assert settings.num_threads == 4


def _run(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )


def test_paddle_starts_without_noise_and_with_our_settings(
    user_environment: dict[str, str],
) -> None:
    code = (
        "from passl import runtime\n"
        "settings = runtime.prepare(2)\n"
        "assert runtime.prepare() is settings, 'a second call changes nothing'\n"
        "paddle = runtime.import_paddle()\n"
        "print(settings.num_threads, paddle.get_flags('FLAGS_use_stride_kernel'))\n"
    )
    done = _run(code, user_environment)
    assert done.stdout == "2 {'FLAGS_use_stride_kernel': False}\n"
    assert done.stderr == ""


def test_other_warnings_and_lines_at_the_import_come_through(
    user_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "paddle.py").write_text(
        "import sys, warnings\n"
        "print('WARNING: OMP_NUM_THREADS set to 2, not 1. The computation ...', file=sys.stderr)\n"
        "print('PLEASE USE OMP_NUM_THREADS WISELY.', file=sys.stderr)\n"
        "print('the driver is too old', file=sys.stderr)\n"
        "warnings.warn('No ccache found. Please be aware')\n"
        "warnings.warn('this one matters')\n"
    )
    environment = dict(user_environment)
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    done = _run("from passl import runtime; runtime.import_paddle()", environment)
    assert "the driver is too old\n" in done.stderr
    assert "UserWarning: this one matters" in done.stderr
    assert "WISELY" not in done.stderr
    assert "OMP_NUM_THREADS" not in done.stderr
    assert "ccache" not in done.stderr


def test_our_warnings_are_seen_after_an_import_that_sets_up_logging(
    user_environment: dict[str, str], tmp_path: Path
) -> None:
    """As Paddle's does, while what it writes to stderr is held back."""
    (tmp_path / "paddle.py").write_text("import logging\nlogging.basicConfig(level=20)\n")
    environment = dict(user_environment)
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    code = (
        "from passl import runtime; runtime.import_paddle()\n"
        "from passl.logs.logger import get_logger\n"
        "get_logger().warning('the file is old'); get_logger().info('all is well')\n"
    )
    assert _run(code, environment).stderr == "WARNING:passl:the file is old\n"


def test_a_failing_import_keeps_its_words(
    user_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "paddle.py").write_text(
        "import sys\nprint('half way', file=sys.stderr)\nraise ImportError('no libstdc++')\n"
    )
    environment = dict(user_environment)
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        _run("from passl import runtime; runtime.import_paddle()", environment)
    assert "half way" in caught.value.stderr
    assert "ImportError: no libstdc++" in caught.value.stderr
