"""The measured stages, one file each: `run(scope)` yields records. Importing this package costs nothing."""

STAGES = ("decode", "preprocess", "features", "writing", "loading", "transfer", "training", "busy", "backbone", "search")
