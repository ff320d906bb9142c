"""A finding: one thing that is not as another part of the run states."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A file, a record or an input with what is wrong with it."""

    path: str
    """Relative to the run's output; of inputs and models, as the recipe names them."""
    message: str
