"""Building blocks of models, one layer a file.

Names of axes in this package: ``b`` images of the batch, ``n`` tokens (class token and patches),
``c`` channels of the residual stream, ``h`` heads, ``d`` channels of one head.

A layer creates its parameters as zeros, once; a model then fills them from one seeded generator
(:mod:`passl.layers.init`), so that a seed gives the same weights on every version of Paddle.
"""
