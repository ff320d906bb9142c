"""Annotates pretraining text, packs it in every layout, trains on it."""

__version__ = "0.1.0"
