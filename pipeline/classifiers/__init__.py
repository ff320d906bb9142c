"""Classifiers trained on the texts of an input: `pooled` and `embedding` ones, and the teaching of all kinds."""
