"""Throughput of every stage with limits, baselines and peers, and search quality on learning curves."""
