"""Tensors of other tools' files: PyTorch, safetensors, NumPy and Paddle, read without running them.

:func:`open_source` opens a file, :class:`TensorSource` hands out its tensors one at a time, and
:func:`write_safetensors` writes a file that other tools read.
"""

from __future__ import annotations

from passl.checkpoint.sources.opening import open_source
from passl.checkpoint.sources.safetensors_writer import write_safetensors
from passl.checkpoint.sources.source import TensorSource

__all__ = ["TensorSource", "open_source", "write_safetensors"]
