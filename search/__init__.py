"""Hyper-parameter search: one space per model, one interface, one file per backend."""

import preprocess  # noqa: F401  # it sets how OpenMP waits, before torch is loaded
