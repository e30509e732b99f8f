"""Audit of a shard set: copies, defects of the audio, and properties that make scores misleading."""
