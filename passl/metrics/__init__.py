"""What evaluation counts.

A metric returns *sums* over a batch (integer counts where it counts), which the engine adds up over
batches and processes and divides once at the end: so the figure does not depend on how the samples
were dealt out.
"""
