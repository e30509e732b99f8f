"""Worker processes of a search."""
