"""Scores, prediction and CSV files of clips."""
