"""Names of stages and cases that the goals refer to, and of a folder in memory."""

from pathlib import Path

MACHINE, TESTS, TRANSFORM, BUILDS = "gpu-machine", "gpu-tests", "gpu-transform", "gpu-builds"
TRAINING, SEARCHES = "gpu-training", "gpu-searches"

DISK = "disk, written and synced"
GPU_TESTS = "tests that need a GPU"
IMAGES = "full + 10 slices"
FEATURES = "features alone (difference)"
FIRST = "first build of a process"
COLD = "files not in the page cache"
ALL = "audio to report, all models"
MEMORY = Path("/dev/shm")
CNN = "search of cnn at {0} x {0}"
