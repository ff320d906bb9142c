"""A trained model in use: the contexts before a text, generation, likelihoods."""
