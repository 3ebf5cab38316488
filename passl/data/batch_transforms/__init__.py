"""Transforms of one batch: ``transform(images, labels, rng) -> (images, labels)``."""
