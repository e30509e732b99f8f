"""Build of shard sets: plan, workers, units and output folder."""
