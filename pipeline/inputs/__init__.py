"""The input: files found, partitions planned, documents read."""
