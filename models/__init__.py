"""Networks, and training, scoring and prediction from shard sets."""
