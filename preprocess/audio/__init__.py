"""Decode audio files."""
