"""The projects of the pipeline's tests."""

from tests.pipeline.conftest import project, templates

__all__ = ["project", "templates"]
