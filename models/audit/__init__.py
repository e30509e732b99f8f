"""Audit of a shard set with the predictions of a run: probable label errors, and the `audit` command."""
