"""Tests of `pipeline.estimates`."""
