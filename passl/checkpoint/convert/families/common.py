"""Rows and reasons that several tables share."""

from __future__ import annotations

__all__ = ["NO_HEAD", "NO_MASK", "NO_PRE_LOGITS"]

NO_PRE_LOGITS = (
    "the model has no representation layer (representation_size); the classifier of the file was "
    "trained behind it, so train a new one"
)
NO_HEAD = "the model has no classifier (class_num is 0)"
NO_MASK = "the token of masked patches is used in pre-training only"
