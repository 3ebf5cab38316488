"""Transforms of one image: ``transform(image, rng) -> image``, uint8 HWC RGB until normalised.

A transform keeps no state between images; whatever is random in it is drawn from ``rng``, the
generator of that sample in that epoch, so the result does not depend on threads, ranks or restarts.
"""
