"""Getting downloaded data sets ready: lists, labels, checksums.

``passl-data`` is the command; the modules here do its work.  Nothing imports Paddle.
"""
