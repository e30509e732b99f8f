"""A compiled trainer for multi-layer perceptrons, equivalent to `shardwave.models.training.fit` but faster."""
