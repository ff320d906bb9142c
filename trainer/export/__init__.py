"""Export of trained models to Hugging Face `transformers` and to lm_eval."""
