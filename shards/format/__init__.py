"""Files of a shard set: tar, index, manifest and records."""
