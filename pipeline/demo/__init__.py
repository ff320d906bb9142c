"""The demo's corpus: real text that is on any machine with the dependencies installed."""
