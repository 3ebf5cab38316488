"""What must be decided before Paddle is imported: threads, kernels, memory, and what is noise.

Paddle on a CPU starts with one thread, strided kernels whose gradients copy element by element,
and an allocator that returns every large block to the system.  None of it can be guessed from a
config, and most of it is read once, when Paddle starts; so the commands call :func:`prepare` first
and :func:`import_paddle` next.

What is set, why, and how to keep it from being set (``PASSL_TUNE=0`` for none of it, or the names
of those wanted, ``PASSL_TUNE=threads,malloc``):

========= ====================================================== ===================================
name      what                                                   also left alone when the user set
========= ====================================================== ===================================
threads   as many threads as this process has physical cores     ``OMP_NUM_THREADS``
mkl       AVX2 or AVX-512 in Paddle's MKL, which denies it to AMD ``MKL_DEBUG_CPU_TYPE``
stride    strided kernels off: a slice is a copy, gradients fast  ``FLAGS_use_stride_kernel``
malloc    glibc keeps large blocks instead of faulting them in    ``MALLOC_*``, ``GLIBC_TUNABLES``
========= ====================================================== ===================================

On anything but a CPU none of it is set.  ``benchmarks/README.md`` shows what each is worth.
This module imports neither Paddle nor numpy until :func:`import_paddle` is called.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Callable, Optional

from passl.errors import ConfigError

__all__ = [
    "TUNE_VARIABLE",
    "RuntimeSettings",
    "available_cores",
    "import_paddle",
    "keep_image_blocks",
    "prepare",
]

TUNE_VARIABLE = "PASSL_TUNE"
_TUNABLES = ("threads", "mkl", "stride", "malloc")
_WORDS_FOR_ALL = {"", "1", "all", "on", "true", "yes"}
_WORDS_FOR_NONE = {"0", "none", "off", "false", "no"}

# mallopt parameters and values. Source: malloc.h of glibc; mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_KEEP_ALL = 2**31 - 1  # bytes; the largest value the int argument of mallopt can hold
_GROW_BY = 64 * 2**20  # bytes asked of the system at a time
#: What MKL calls the code for each vector unit.
_MKL_CODES = {"AVX2": "5", "AVX-512": "7"}
_AVX512 = {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
_IMAGE_BLOCKS = 32 * 2**20  # bytes; glibc takes no larger M_MMAP_THRESHOLD


@dataclass(frozen=True)
class RuntimeSettings:
    """What :func:`prepare` decided for this process.

    Attributes:
        device: "cpu" or "accelerator", the kind of device the settings are meant for.
        num_threads: threads of the math library; None where Paddle's own choice stands.
        effects: what was set, in words.
        kept: what the user had set and therefore stands, in words.
        notes: what could not be set, and why.
        disabled: tuning was switched off altogether.
    """

    device: str
    num_threads: Optional[int]
    effects: tuple[str, ...]
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    disabled: bool = False

    def describe(self) -> str:
        """All of it in one line for the log."""
        if self.device != "cpu":
            return "Accelerator: Paddle's own settings"
        parts = [*self.effects, *(f"{item} (yours)" for item in self.kept), *self.notes]
        if self.disabled:
            parts.append("Paddle's own settings")
            return f"CPU: {', '.join(parts)} ({TUNE_VARIABLE}=0)"
        return f"CPU: {', '.join(parts)}; {TUNE_VARIABLE}=0 switches this off"


_prepared: Optional[tuple[Optional[int], RuntimeSettings]] = None


def prepare(num_threads: Optional[int] = None, *, device: str = "auto") -> RuntimeSettings:
    """Choose and apply the settings of this process; call it before Paddle is imported.

    What the environment already says stands, except that ``num_threads``, written for this run,
    outranks ``OMP_NUM_THREADS``.  The settings belong to the process: a second call returns the
    first one's, unless it asks for another number of threads.  After Paddle was imported it does
    what still can be done and says what could not.

    Args:
        num_threads: ``Global.num_threads``; None takes the physical cores of this process, divided
            by the ranks on this machine.
        device: ``Global.device``; the settings are for "cpu", or "auto" where no GPU will be used.

    Raises:
        ConfigError: ``num_threads`` is not positive, or ``PASSL_TUNE`` names something unknown.
    """
    global _prepared
    if num_threads is not None and num_threads < 1:
        raise ConfigError(f"Global.num_threads must be 1 or more, or null; got {num_threads}")
    if _prepared is not None and num_threads in (None, _prepared[0]):
        return _prepared[1]
    hush()
    settings = _apply(num_threads, device, os.environ, sys.modules.get("paddle"))
    _prepared = (num_threads, settings)
    return settings


def import_paddle() -> ModuleType:
    """Import Paddle without the lines it prints at every start; other warnings come through."""
    hush()
    with _dropping_lines(_START_UP_NOISE):
        return importlib.import_module("paddle")


def available_cores(root: Path = Path("/")) -> int:
    """Physical cores this process may use: its affinity, without hyper-threads, within its quota.

    Args:
        root: where ``sys`` and ``proc`` are mounted.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
    else:  # macOS
        cpus = set(range(os.cpu_count() or 1))
    cores = {_core_of(cpu, root) for cpu in cpus}
    quota = _cpu_quota(root)
    return max(1, len(cores) if quota is None else min(len(cores), int(quota)))


# -- silence ---------------------------------------------------------------------------------

# Printed, not warned: paddle/base/__init__.py advises against threads for builds with OpenBLAS,
# which the published wheels are not.
_START_UP_NOISE = re.compile(
    r"WARNING: OMP_NUM_THREADS set to \d+, not 1\..*|PLEASE USE OMP_NUM_THREADS WISELY\."
)


def hush() -> None:
    """Switch off the messages that say nothing about this run; the user's choice stands."""
    # 2: errors only. Below that Paddle's C++ reports each flag and each port it waits for.
    os.environ.setdefault("GLOG_minloglevel", "2")
    # ccache speeds up compiling custom C++ operators; nobody who trains needs to hear of it.
    warnings.filterwarnings("ignore", message="No ccache found", category=UserWarning)


@contextlib.contextmanager
def _dropping_lines(noise: re.Pattern[str]) -> Iterator[None]:
    """Hold back what Python code writes to stderr; pass on the lines that are not ``noise``."""
    held = io.StringIO()
    try:
        with contextlib.redirect_stderr(held):
            yield
    finally:
        _give_back_stderr(held)
        lines = held.getvalue().splitlines(keepends=True)
        with contextlib.suppress(OSError):  # a log on a full disk
            sys.stderr.write("".join(line for line in lines if not noise.fullmatch(line.strip())))


def _give_back_stderr(held: io.StringIO) -> None:
    """Handlers of log records that were made meanwhile write to stderr again, not to nobody.

    Paddle gives the root logger one, and with it the level INFO, which ours did not ask for.
    """
    named = logging.Logger.manager.loggerDict.values()
    for logger in (logging.getLogger(), *named):
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler) and handler.stream is held:
                handler.setStream(sys.stderr)
    ours = logging.getLogger("passl")
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.WARNING)


def keep_image_blocks(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Have glibc keep blocks of the size of an image, also where training is on an accelerator.

    Otherwise each decoded image is memory that the system hands out page by page and takes back,
    which is a quarter of the time of decoding it (``benchmarks/data_loading.py``).

    Returns:
        Whether it was done; not where the user set anything of the kind.
    """
    if "malloc" not in _wanted(environ.get(TUNE_VARIABLE, "")) or _users_allocator(environ):
        return False
    libc = _glibc()
    if libc is None:
        return False
    done = [
        libc.mallopt(_M_MMAP_THRESHOLD, _IMAGE_BLOCKS),
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_ALL),
    ]
    return all(done)


# -- settings --------------------------------------------------------------------------------


def _apply(
    num_threads: Optional[int],
    device: str,
    environ: MutableMapping[str, str],
    paddle: Optional[ModuleType],
) -> RuntimeSettings:
    wanted = _wanted(environ.get(TUNE_VARIABLE, ""))
    disabled = not wanted
    if not _runs_on_cpu(device, environ):
        return RuntimeSettings("accelerator", None, (), disabled=disabled)
    report = _Report()
    threads = _set_threads(num_threads, wanted, environ, paddle, report)
    if "stride" in wanted:
        _set_stride_kernels(environ, paddle, report)
    vectors = _vectors_denied_by_mkl()
    if "mkl" in wanted and vectors is not None:
        _set_mkl_code_path(vectors, environ, paddle, report)
    if "malloc" in wanted:
        _keep_large_allocations(environ, report)
    return RuntimeSettings(
        "cpu", threads, tuple(report.effects), tuple(report.kept), tuple(report.notes), disabled
    )


class _Report:
    def __init__(self) -> None:
        self.effects: list[str] = []
        self.kept: list[str] = []
        self.notes: list[str] = []


def _wanted(text: str) -> set[str]:
    words = {word.strip().lower() for word in text.split(",")}
    if words <= _WORDS_FOR_ALL:
        return set(_TUNABLES)
    if words <= _WORDS_FOR_NONE:
        return set()
    unknown = sorted(words - set(_TUNABLES))
    if unknown:
        raise ConfigError(
            f"{TUNE_VARIABLE}={text}: {', '.join(unknown)} is not a setting; "
            f"write 0, 1, or some of {','.join(_TUNABLES)}"
        )
    return words


def _runs_on_cpu(device: str, environ: MutableMapping[str, str]) -> bool:
    if device != "auto":
        return device == "cpu"
    if environ.get("CUDA_VISIBLE_DEVICES", "unset").strip() in ("", "-1"):
        return True
    try:
        importlib.metadata.version("paddlepaddle-gpu")
    except importlib.metadata.PackageNotFoundError:
        return True
    return not Path("/dev/nvidiactl").exists()


def _set_threads(
    asked: Optional[int],
    wanted: set[str],
    environ: MutableMapping[str, str],
    paddle: Optional[ModuleType],
    report: _Report,
) -> Optional[int]:
    if asked is None:
        users = _threads_of_user(environ, paddle)
        if users is not None:
            report.kept.append(_count(users, "thread"))
            return users
        if "threads" not in wanted:
            return None
        asked = max(1, available_cores() // _local_ranks(environ))
    environ["OMP_NUM_THREADS"] = str(asked)
    if paddle is not None:
        setter = getattr(paddle.base.core, "set_num_threads", None)
        if setter is None:
            report.notes.append("threads unchanged, since Paddle was already imported")
            return None
        setter(asked)
    report.effects.append(_count(asked, "thread"))
    return asked


def _threads_of_user(
    environ: MutableMapping[str, str], paddle: Optional[ModuleType]
) -> Optional[int]:
    """``OMP_NUM_THREADS`` where a person set it.

    Importing Paddle writes 1 there when it is unset, and the launcher imports Paddle and hands its
    environment down: so in a rank, or after the import, 1 is Paddle's word and not the user's.
    """
    text = environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # "4,2": nested levels
    if not text.isdigit() or int(text) < 1:
        return None
    if int(text) == 1 and (paddle is not None or "PADDLE_TRAINER_ID" in environ):
        return None
    return int(text)


def _local_ranks(environ: MutableMapping[str, str]) -> int:
    text = environ.get("PADDLE_LOCAL_SIZE", "1")
    return max(1, int(text)) if text.isdigit() else 1


def _set_stride_kernels(
    environ: MutableMapping[str, str], paddle: Optional[ModuleType], report: _Report
) -> None:
    flag = "FLAGS_use_stride_kernel"
    if flag in environ:
        state = "off" if environ[flag].lower() in ("0", "false") else "on"
        report.kept.append(f"stride kernels {state}")
        return
    environ[flag] = "0"
    if paddle is not None:
        try:
            paddle.set_flags({flag: 0})
        except ValueError:  # a build without the flag has no strided kernels either
            return
    report.effects.append("stride kernels off")


def _set_mkl_code_path(
    vectors: str,
    environ: MutableMapping[str, str],
    paddle: Optional[ModuleType],
    report: _Report,
) -> None:
    if "MKL_DEBUG_CPU_TYPE" in environ:
        report.kept.append(f"MKL code path {environ['MKL_DEBUG_CPU_TYPE']}")
        return
    # MKL reads it at the first matrix product, so it also counts after the import.
    environ["MKL_DEBUG_CPU_TYPE"] = _MKL_CODES[vectors]
    if paddle is None:
        report.effects.append(f"{vectors} code of MKL")
    else:
        report.notes.append(f"{vectors} code of MKL if no matrix product has run yet")


def _keep_large_allocations(environ: MutableMapping[str, str], report: _Report) -> None:
    users = _users_allocator(environ)
    if users is not None:
        report.kept.append(users)
        return
    libc = _glibc()
    if libc is None:
        return
    done = [
        libc.mallopt(_M_MMAP_MAX, 0),
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_ALL),
        libc.mallopt(_M_TOP_PAD, _GROW_BY),
    ]
    if all(done):
        report.effects.append("large allocations kept")
    else:
        report.notes.append("memory settings refused by the C library")


def _users_allocator(environ: MutableMapping[str, str]) -> Optional[str]:
    """What the user has set about memory, in words."""
    users = [name for name in environ if name.startswith("MALLOC_")]
    if users or "glibc.malloc" in environ.get("GLIBC_TUNABLES", ""):
        return "memory settings"
    return "preloaded allocator" if "malloc" in environ.get("LD_PRELOAD", "") else None


# -- the machine -----------------------------------------------------------------------------


def _glibc() -> Optional[ctypes.CDLL]:
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):  # Windows has no such handle
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def _vectors_denied_by_mkl(cpuinfo: Path = Path("/proc/cpuinfo")) -> Optional[str]:
    """``AVX2`` or ``AVX-512`` where MKL would choose its SSE code although an AMD CPU has it.

    AVX-512 is Zen 4 and later.  On an Intel CPU MKL chooses well by itself, and the same variable
    costs speed: ``benchmarks/README.md``.
    """
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    if "AuthenticAMD" not in text or "avx2" not in flags:
        return None
    return "AVX-512" if flags >= _AVX512 else "AVX2"


def _core_of(cpu: int, root: Path) -> str:
    """A name shared by the hyper-threads of one core."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    try:
        return (topology / "thread_siblings_list").read_text().strip()
    except OSError:
        return f"cpu{cpu}"


def _cpu_quota(root: Path) -> Optional[float]:
    """CPUs granted by the control groups of this process, the tightest one; None without a limit.

    Source: the kernel's Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst.
    """
    try:
        memberships = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for membership in memberships:
        _, controllers, path = membership.split(":", 2)
        if not controllers:
            quotas += _quotas_along(root / "sys/fs/cgroup", path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _quotas_along(root / "sys/fs/cgroup/cpu", path, _quota_v1)
    return min(quotas, default=None)


def _quotas_along(
    mount: Path, path: str, read: Callable[[Path], tuple[float, float]]
) -> list[float]:
    """The limits of a group and of all its parents; inside a container only the mount is seen."""
    group = mount / path.strip("/")
    chain = [group, *(parent for parent in group.parents if parent.is_relative_to(mount))]
    found: list[float] = []
    for folder in chain:
        with contextlib.suppress(OSError, ValueError):
            quota, period = read(folder)
            if quota > 0 and period > 0:
                found.append(quota / period)
    return found


def _quota_v2(folder: Path) -> tuple[float, float]:
    quota, period = (folder / "cpu.max").read_text().split()
    return (-1.0 if quota == "max" else float(quota)), float(period)


def _quota_v1(folder: Path) -> tuple[float, float]:
    quota = (folder / "cpu.cfs_quota_us").read_text()
    return float(quota), float((folder / "cpu.cfs_period_us").read_text())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
