"""The work on a partition: annotate, tokenize, pack."""
