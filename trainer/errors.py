"""What the trainer cannot work with."""

from __future__ import annotations


class TrainerError(ValueError):
    """A setting, a checkpoint or a loss that training cannot go on with; the message is one line for a person."""
