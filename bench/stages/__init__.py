"""Measured stages, one module each, whose `run(scope)` yields records. This package imports none of them."""

STAGES = (
    "decode",
    "preprocess",
    "features",
    "writing",
    "loading",
    "strips",
    "transfer",
    "training",
    "busy",
    "backbone",
    "export",
    "search",
)
