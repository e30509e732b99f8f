"""Report pages: what they say as blocks, and the two ways they are written, HTML and Markdown."""
