"""Compute spectrogram images and features from audio files."""
