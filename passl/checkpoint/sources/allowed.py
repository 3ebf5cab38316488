"""Which names a pickle of weights may hold: everything else is refused, though nothing would run.

Files of weights carry bystanders: an ``argparse.Namespace`` of the settings, a path, a date, a
config of somebody's class.  Those stay records.  What reaches for the system, or calls a function
that is not known to make data, is not data, whatever the rest of the file looks like.
"""

from __future__ import annotations

from pathlib import Path

from passl.checkpoint.sources.inert_pickle import Name, Pickle, words
from passl.errors import CheckpointError

__all__ = ["refuse_code"]

#: Modules that no file of weights has a reason to speak of.
_SYSTEM = words(
    "os posix nt ntpath posixpath sys subprocess commands popen2 pty shutil socket socketserver "
    "ssl importlib imp runpy pkgutil zipimport code codeop ctypes _ctypes cffi marshal pickle "
    "_pickle cPickle dill cloudpickle shelve operator _operator inspect gc signal threading "
    "_thread multiprocessing asyncio concurrent webbrowser urllib urllib2 http ftplib smtplib "
    "telnetlib pdb bdb cProfile tempfile io _io sitecustomize pip ensurepip venv mmap fcntl "
    "atexit"
)
_PYTHON = frozenset(("builtins", "__builtin__"))
#: Of Python's own names, those that are data or make it.
_HARMLESS_BUILTINS = words(
    "list dict set frozenset tuple int long float bool str unicode bytes bytearray complex "
    "object slice range xrange NoneType Ellipsis type"
)
_HARMLESS_TYPES = frozenset(("SimpleNamespace", "MappingProxyType", "NoneType"))
#: Functions, by their lower-case names, that are known to make data.
_MAKERS = words(
    "_codecs.encode copyreg._reconstructor copy_reg._reconstructor collections.defaultdict "
    "collections.deque datetime.datetime datetime.date datetime.time datetime.timedelta "
    "datetime.timezone functools.partial torch.device torch.serialization._get_layout "
    "numpy.dtype numpy.ndarray numpy.core.multiarray._reconstruct "
    "numpy._core.multiarray._reconstruct numpy.core.multiarray.scalar "
    "numpy._core.multiarray.scalar numpy.core.numeric._frombuffer "
    "numpy._core.numeric._frombuffer numpy.random._pickle.__randomstate_ctor "
    "numpy.random._pickle.__generator_ctor numpy.random._pickle.__bit_generator_ctor "
    "torch._tensor._rebuild_from_type_v2"
)
_TORCH_MAKERS = "torch._utils._rebuild_"


def refuse_code(pickle: Pickle, path: Path) -> None:
    """Look through every name of a pickle.

    Raises:
        CheckpointError: one of them is not data; says which.
    """
    for name, is_called in pickle.names.items():
        if _is_system(name):
            verb = "run" if is_called else "hand out"
            raise CheckpointError(
                f"{path}: refused, because loading it would {verb} {name}, and a file of weights "
                "needs no code. Nothing was run. Do not trust this file, and do not open it with "
                "torch.load or paddle.load."
            )
        if is_called and not _makes_data(name):
            raise CheckpointError(
                f"{path}: refused, because loading it would run {name}, and a file of weights "
                "needs no code. Nothing was run. If you trust its origin, save the weights alone "
                "where its code is installed: torch.save(model.state_dict(), 'weights.pth')."
            )


def _is_system(name: Name) -> bool:
    module = name.module.split(".")[0]
    if module in _PYTHON:
        return name.name not in _HARMLESS_BUILTINS
    if module == "types":
        return name.name not in _HARMLESS_TYPES
    return module in _SYSTEM


def _makes_data(name: Name) -> bool:
    """Whether a call makes an object: known functions, and classes by their spelling."""
    text = str(name)
    if name.module in _PYTHON or text in _MAKERS or text.startswith(_TORCH_MAKERS):
        return True
    return name.name.rpartition(".")[2].lstrip("_")[:1].isupper()
