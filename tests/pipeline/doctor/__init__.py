"""Tests of `pipeline.doctor`."""
