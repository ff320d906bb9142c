"""The demo's corpus: real text that every machine with the dependencies installed has."""
