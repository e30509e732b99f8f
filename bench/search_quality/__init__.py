"""Search backends replayed on recorded learning curves."""
