"""Files of weights and training state: a kill cannot tear them, reading cannot run them.

:mod:`~passl.checkpoint.files` reads and writes one file of arrays, :mod:`~passl.checkpoint.store`
keeps the checkpoints of a run, :mod:`~passl.checkpoint.resolve` turns what a user typed into
files, and :mod:`~passl.checkpoint.pretrained` puts weights into a model and says what it did.
"""
