"""Trained models elsewhere: a directory for Hugging Face `transformers`, and the model type of lm_eval."""
