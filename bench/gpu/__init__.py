"""Steps of `bench gpu-check`, one module each, whose `run(scope)` yields records."""

STEPS = {  # share of the time of each step, and its subject
    "machine": (30, "digest, disk, memory, transfers and matrix products"),
    "tests": (80, "tests that need a GPU"),
    "transform": (40, "images and features alone, without files"),
    "builds": (120, "files to shards, in memory and on disk"),
    "training": (60, "training steps of all models"),
    "searches": (230, "audio to a report with all models tuned"),
}
