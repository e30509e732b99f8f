"""Embeddings: outputs of pretrained audio networks as feature vectors, one file per network."""
