"""Configurations that were good on several recorded tables, for the first trials of a search."""

from __future__ import annotations

from typing import Any

# `shardwave.bench.search_quality.starts.best_on_all` of the tables mlp-*, best first; the numbers are rounded
# to three digits
_SHARED: tuple[dict[str, Any], ...] = (
    {
        "batch_size": 16,
        "hidden_size": 256,
        "dropout": 0.101,
        "learning_rate": 0.00212,
        "weight_decay": 1.31e-05,
    },
    {
        "batch_size": 16,
        "hidden_size": 256,
        "dropout": 0.0615,
        "learning_rate": 0.00167,
        "weight_decay": 0.0353,
    },
    {
        "batch_size": 16,
        "hidden_size": 256,
        "dropout": 0.0712,
        "learning_rate": 0.00184,
        "weight_decay": 0.00868,
    },
    {
        "batch_size": 32,
        "hidden_size": 128,
        "dropout": 0.318,
        "learning_rate": 0.00302,
        "weight_decay": 2.55e-05,
    },
    {
        "batch_size": 16,
        "hidden_size": 256,
        "dropout": 0.101,
        "learning_rate": 0.00101,
        "weight_decay": 0.00513,
    },
)
STARTS: dict[str, tuple[dict[str, Any], ...]] = {"mlp": _SHARED, "cnn": _SHARED}  # on cnn: docs/search.md
