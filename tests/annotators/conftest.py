"""Settings of the property tests of this folder."""

from hypothesis import settings

# A busy machine must not fail a test: no deadline per example.
settings.register_profile("annotators", deadline=None, max_examples=100)
settings.load_profile("annotators")
