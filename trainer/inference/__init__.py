"""A trained model at work: contexts, generation, likelihood."""
