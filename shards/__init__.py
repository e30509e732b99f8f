"""Shard sets: format, splits, sources, build, readers and storage."""
