"""Throughput of every stage beside its floor and its peers, and search quality on recorded curves."""
