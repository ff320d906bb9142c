"""Training of fastText classifiers; `classifier.train_classifier` runs all its steps."""
