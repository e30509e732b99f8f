"""Throughput of every stage, beside its floor and its peers, and reports on it."""
