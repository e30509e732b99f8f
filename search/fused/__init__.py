"""A compiled trainer for perceptrons, equivalent to `shardwave.models.training.fit` but faster."""
