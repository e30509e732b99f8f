"""Inspection of shard sets: summaries, single samples, figures, comparison with the audio."""
