"""Other programs for the same tasks, used as their documentation shows."""
