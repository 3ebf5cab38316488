"""From files on disk to batches in memory.

``table`` and ``lists`` hold what a list file says, ``datasets`` give encoded or plain images,
``transforms`` and ``batch_transforms`` work on them, ``samplers`` decide the order, ``loader`` runs
it all in threads and ``build`` puts the parts together from a config.  Nothing heavy is imported
here: OpenCV, Pillow, scikit-learn and Paddle come in where they are used.
"""
