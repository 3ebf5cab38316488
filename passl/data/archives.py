"""Images inside archives, read at their places without unpacking."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from passl.data.dataset import Dataset, Image, Label
from passl.data.table import SampleTable
from passl.errors import DataError

__all__ = ["ArchiveDataset"]


class ArchiveDataset(Dataset):
    """Samples that are pieces of a few large files.

    Reads use the offset of each sample and no position of a file, so threads and forked processes
    share the open files safely.

    Args:
        archives: the files.
        table: names and labels of the samples.
        archive_of: int32 [N], which archive each sample is in.
        offsets, sizes: int64 [N], its bytes.
        transform_ops: as for :class:`~passl.data.dataset.Dataset`.
        stamps: ``size`` and ``mtime_ns`` of each archive when its samples were found; a file with
            others is refused when it is opened.
    """

    def __init__(
        self,
        archives: Sequence[Path],
        table: SampleTable,
        archive_of: np.ndarray,
        offsets: np.ndarray,
        sizes: np.ndarray,
        transform_ops: Sequence[Any] = (),
        stamps: Optional[Sequence[Mapping[str, int]]] = None,
    ) -> None:
        super().__init__(transform_ops)
        self.archives, self.table = list(archives), table
        self.labels = table.labels
        self._archive_of, self._offsets, self._sizes = archive_of, offsets, sizes
        self._files = _OpenFiles(self.archives, stamps)

    def __len__(self) -> int:
        return len(self.table)

    def path_of(self, index: int) -> str:
        """``ARCHIVE!MEMBER``."""
        return f"{self.archives[int(self._archive_of[index])]}!{self.table.name(index)}"

    @property
    def places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Archive, offset and size of each sample: int32, int64 and int64 [N]."""
        return self._archive_of, self._offsets, self._sizes

    def load(self, index: int) -> tuple[Image, Label]:
        """The bytes of the image file and its label."""
        size = int(self._sizes[index])
        data = self._files.read(int(self._archive_of[index]), int(self._offsets[index]), size)
        if len(data) != size:
            raise DataError(
                f"the archive has {len(data)} of the {size} bytes; it was changed after it was "
                "indexed"
            )
        return data, self.table.label(index)


class _OpenFiles:
    """File handles by number, opened when needed; the oldest is closed when there are too many."""

    def __init__(
        self, paths: Sequence[Path], stamps: Optional[Sequence[Mapping[str, int]]] = None
    ) -> None:
        self._paths, self._stamps = paths, stamps
        self._handles: dict[int, int] = {}
        self._lock = threading.Lock()
        soft_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = max(8, soft_limit // 4)

    def read(self, number: int, offset: int, size: int) -> bytes:
        with self._lock:
            handle = self._handles.pop(number, None)
            if handle is None:
                handle = self._open(number)
            self._handles[number] = handle  # the newest is last
            mine = os.dup(handle) if len(self._paths) > self._most else None
            if len(self._handles) > self._most:
                os.close(self._handles.pop(next(iter(self._handles))))
        try:
            return os.pread(handle if mine is None else mine, size, offset)
        finally:
            if mine is not None:
                os.close(mine)

    def _open(self, number: int) -> int:
        handle = os.open(self._paths[number], os.O_RDONLY)
        if self._stamps is not None:
            status, stamp = os.fstat(handle), self._stamps[number]
            if (status.st_size, status.st_mtime_ns) != (stamp["size"], stamp["mtime_ns"]):
                os.close(handle)
                raise DataError(
                    f"{self._paths[number]}: was changed after its samples were found, so they may "
                    "lie elsewhere now; start the command again"
                )
        return handle

    def __del__(self) -> None:
        for handle in self._handles.values():
            os.close(handle)

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": list(self._paths), "stamps": self._stamps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["paths"], state["stamps"])  # type: ignore[misc]
