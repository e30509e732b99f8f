"""Assignment of clips to splits."""
