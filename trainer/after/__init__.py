"""What is done with a trained model: evaluation, generation, probes, attention, export, curves."""
