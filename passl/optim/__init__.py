"""Updating weights: parameter groups, AdamW, Momentum, and gradient clipping.

The optimizers are our own so that three things hold everywhere: their state is saved under the
model's own parameter names (Paddle's counters change with any layer built before), a continued run
equals an uninterrupted one bit for bit, and weights of half precision are updated through float32
copies.  The arithmetic is done by Paddle's fused kernels (:mod:`passl.optim.kernels`).
"""
