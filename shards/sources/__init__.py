"""What lies in a folder or a table, as clips: one file per kind of source."""
