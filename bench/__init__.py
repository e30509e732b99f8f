"""Throughput of every stage beside its floor and its peers, and search quality on recorded curves."""

import preprocess  # noqa: F401  # it sets how OpenMP waits, before torch is loaded
