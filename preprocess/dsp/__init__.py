"""Define filters, resize weights and features."""
