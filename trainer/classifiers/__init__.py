"""Training of `pooled` classifiers; their scoring, without torch, is in `annotators.pooled`."""
