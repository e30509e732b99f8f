"""The command line: thin commands over the rooms; what is heavy is imported inside them."""
