"""Classifiers that are trained on the texts of an input: `pooled` ones, and the teaching of both kinds."""
