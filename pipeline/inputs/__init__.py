"""The input: the search for files, the cut into partitions, and readers by format."""
