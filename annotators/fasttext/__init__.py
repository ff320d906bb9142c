"""fastText classifiers: files, training, scoring."""
