"""Tests of the package `shards`."""
