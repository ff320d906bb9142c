"""`colophon duplicates`: the keys of all documents, clusters of those that share one, and a table of the clusters."""
