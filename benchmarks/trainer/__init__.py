"""Training speed: Colophon's trainer beside a plain loop and Hugging Face's, the same model on the same batches."""
