"""Errors of models: a size or a setting that does not fit."""

from __future__ import annotations

from passl.errors import ConfigError, PasslError

__all__ = ["InputShapeError", "ModelArgumentError"]


class ModelArgumentError(ConfigError, ValueError):
    """Arguments of a model that contradict each other or lie outside their range."""


class InputShapeError(PasslError, ValueError):
    """A batch of images whose shape is not the one the model was built for."""
