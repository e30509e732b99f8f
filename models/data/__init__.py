"""Data of a training: the roles of splits, views and batches."""
