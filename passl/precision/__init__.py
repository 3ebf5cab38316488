"""Number formats of a training step: automatic casts and the loss scale."""
