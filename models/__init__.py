"""Networks, and training, scoring and prediction from shard sets."""

import preprocess  # noqa: F401  # it sets how OpenMP waits, before torch is loaded
