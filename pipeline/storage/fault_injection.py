"""Fault injection for tests: at a step of a commit a process kills itself, hangs, grows or gets a full disk.

`COLOPHON_FAULT` holds a `Fault` as JSON. Without it a step costs the read of an environment variable.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

VARIABLE = "COLOPHON_FAULT"
_POLL_SECONDS = 0.02
Step = Literal[
    "before write",
    "mid-write",
    "before rename",
    "before record",
    "before segment",
    "before removal",
    "before manifest",
]


class Fault(BaseModel):
    """A fault: the step, the action, and how often it strikes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: Step
    action: Literal["kill", "hang", "grow", "disk full"]
    directory: Path
    """Holds one file for each time that any process reached the step."""
    stage: str = ""
    """Strikes only in outputs or stages whose name begins with this."""
    at: int = 1
    """Strikes first when the step is reached for this time, counted from 1."""
    times: int = 1
    """Strikes this many times in a row."""

    def strikes(self) -> bool:
        """Count this time; whether the fault strikes now."""
        number = 1
        while True:
            try:
                os.close(os.open(self.directory / str(number), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                number += 1
            else:
                return self.at <= number < self.at + self.times


def reached(step: Step, stage: str = "") -> None:
    """Called before each step of a commit; returns unless a fault is injected here.

    Args:
        step: the step.
        stage: the output or stage.

    Raises:
        OSError: ENOSPC, if the fault is a full disk.
    """
    if VARIABLE not in os.environ:
        return
    fault = _fault(os.environ[VARIABLE])
    if fault.step == step and stage.startswith(fault.stage) and fault.strikes():
        _act(fault)


@cache
def _fault(text: str) -> Fault:
    return Fault.model_validate_json(text)


def _act(fault: Fault) -> None:
    if fault.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.action == "disk full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    hoard = []
    while fault.action == "grow":
        hoard.append(bytearray(os.urandom(1 << 20) * 16))
    while not (fault.directory / "go").exists():  # a test ends the hang by creating it
        time.sleep(_POLL_SECONDS)
