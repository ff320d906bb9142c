"""The stages: annotate, tokenize, pack. Each turns a partition into one file per output, with a commit record."""
