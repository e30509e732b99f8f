"""A compiled trainer for multi-layer perceptrons; it does what `shardwave.models.training.fit` does, in less time."""
