"""Hyper-parameter search: search spaces, budgets, backends and worker processes."""
