"""A checked config -> a run: build the parts, train, evaluate, save, continue."""
