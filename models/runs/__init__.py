"""Files of a run folder: results, checkpoints, clip tables and figures."""
