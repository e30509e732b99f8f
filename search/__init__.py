"""Hyper-parameter search: one space per model, one interface, one file per backend."""
