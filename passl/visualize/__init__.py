"""Pictures of data and models, drawn with matplotlib (``pip install matplotlib``)."""
