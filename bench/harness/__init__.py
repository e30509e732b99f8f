"""Timing, records, worker processes and limits that the stages share."""
