"""Training of `pooled` and `embedding` classifiers; their scoring, without torch, is in `annotators`."""
