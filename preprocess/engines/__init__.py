"""Compute images and features with one of several engines."""
