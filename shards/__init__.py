"""Shard sets: sample layout, manifest, split, writer, readers, build."""

import preprocess  # noqa: F401  # it sets how OpenMP waits, before torch is loaded
