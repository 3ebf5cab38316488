"""From a batch in the host's memory to tensors on the device.

On a GPU the pixels are put into pinned memory and copied from there on a stream of its own, without
waiting: the host runs ahead of the device, so while one step is computed the pixels of the next are
already under way.  What a copy reads from and writes to is held until the device is known to be
past the work that was queued while the batch was in use; only then may the memory serve again.

On a CPU there is nothing to hide, and a batch becomes a tensor by the one copy that Paddle makes.

The part that needs a GPU is :class:`_Gpu`, made of documented calls (``paddle.CUDAPinnedPlace``,
``Tensor.cuda``, ``paddle.device.Stream``, ``Event``, ``stream_guard``).  The project has run it on
no GPU; order and lifetimes are tested with a device made for it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Optional, Protocol

import numpy as np

if TYPE_CHECKING:
    from passl.data.batch import Batch

__all__ = ["Transfer"]

#: Batches on the device or under way; a host that ran further ahead would only fill memory.
_MOST_AHEAD = 3


class Device(Protocol):
    """What :class:`Transfer` asks of a device that copies by itself."""

    def copy(self, array: np.ndarray) -> tuple[Any, Any]:
        """Begin to copy; returns the tensor on the device, and what must be kept meanwhile."""

    def await_copies(self) -> None:
        """Have the computation that is queued from now on wait for the copies begun so far."""

    def mark(self) -> Any:
        """A mark behind the computation that is queued so far."""

    def is_past(self, mark: Any) -> bool:
        """Whether the device has come to the mark."""

    def wait_for(self, mark: Any) -> None:
        """Wait until it has."""


class Transfer:
    """Makes tensors of batches.

    Args:
        device: what copies; None: Paddle's current device decides, at the first batch.
    """

    def __init__(self, device: Optional[Device] = None) -> None:
        self._device = device
        self._is_known = device is not None
        self._in_use: list[Any] = []
        self._held: deque[tuple[Any, list[Any]]] = deque()

    def __call__(self, batch: Batch) -> tuple[Any, Any]:
        """Images and labels of ``batch`` on the device.

        They may be used in what is queued until the next call; slices of them as well.
        """
        import paddle

        device = self._current()
        if device is None or not len(batch.labels):
            return paddle.to_tensor(batch.images), paddle.to_tensor(batch.labels)
        self._retire(device)
        images, kept = device.copy(batch.images)
        labels, also_kept = device.copy(batch.labels)
        device.await_copies()
        self._in_use = [images, kept, labels, also_kept]
        return images, labels

    def _retire(self, device: Device) -> None:
        """Mark the end of the batch before, and let go of those that the device is done with."""
        if self._in_use:
            self._held.append((device.mark(), self._in_use))
            self._in_use = []
        while self._held and device.is_past(self._held[0][0]):
            self._held.popleft()
        while len(self._held) >= _MOST_AHEAD:
            device.wait_for(self._held[0][0])
            self._held.popleft()

    def _current(self) -> Optional[Device]:
        if not self._is_known:
            import paddle

            self._device = _Gpu() if paddle.get_device().startswith("gpu") else None
            self._is_known = True
        return self._device


class _Gpu:
    """The current GPU, with a stream for copies."""

    def __init__(self) -> None:
        import paddle

        self._paddle = paddle
        self._copies = paddle.device.Stream()

    def copy(self, array: np.ndarray) -> tuple[Any, Any]:
        pinned = self._paddle.to_tensor(array, place=self._paddle.CUDAPinnedPlace())
        with self._paddle.device.stream_guard(self._copies):
            return pinned.cuda(blocking=False), pinned

    def await_copies(self) -> None:
        event = self._paddle.device.Event()
        event.record(self._copies)
        self._paddle.device.current_stream().wait_event(event)

    def mark(self) -> Any:
        event = self._paddle.device.Event()
        event.record(self._paddle.device.current_stream())
        return event

    def is_past(self, mark: Any) -> bool:
        return bool(mark.query())

    def wait_for(self, mark: Any) -> None:
        mark.synchronize()
