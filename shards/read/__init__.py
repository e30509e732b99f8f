"""Readers of shard sets: random access, batches, streams and a cache of sets at URLs."""
