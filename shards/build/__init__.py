"""Build of shard sets: plan, shard tasks, executors and output folder."""
