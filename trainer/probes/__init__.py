"""What can be read from a model's frozen states: `probing` asks, the others fit, score and tell."""
