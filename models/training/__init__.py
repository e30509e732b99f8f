"""Training: settings, loops, cross-validation and recording."""
