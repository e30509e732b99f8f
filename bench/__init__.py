"""Throughput of every stage beside baselines, limits and peers, and search quality on recorded learning curves."""
