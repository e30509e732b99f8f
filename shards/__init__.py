"""Shard sets: sample layout, manifest, split, writer, readers, build."""
