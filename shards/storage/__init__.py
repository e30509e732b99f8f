"""Files on disk and in object stores: paths, atomic writes, locks, retries and temporary folders."""
