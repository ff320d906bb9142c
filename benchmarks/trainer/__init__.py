"""Measures training speed: Colophon's trainer, a plain loop and Hugging Face's, the same model on the same batches."""
