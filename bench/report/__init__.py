"""Reports: their contents as blocks, written as HTML or Markdown."""
