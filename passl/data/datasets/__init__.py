"""Data sets by name: one file a data set, found by :data:`passl.registry.DATASETS`."""
