"""Models whose weights and activations are rounded to another number format, in simulation.

Everything stays float32 in memory; what is simulated is which values there can be.
"""
