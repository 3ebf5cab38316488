"""Many runs of one config that differ in a few values, and which of them was best.

:mod:`~passl.sweep.factors` reads what was typed, :mod:`~passl.sweep.plan` makes the runs of it and
has every one checked, :mod:`~passl.sweep.queue` trains them here, :mod:`~passl.sweep.slurm` writes
an array job instead, :mod:`~passl.sweep.records` knows how far each is, and
:mod:`~passl.sweep.report` and :mod:`~passl.sweep.picture` compare them.  Nothing here imports
Paddle: the runs are processes of their own.
"""
