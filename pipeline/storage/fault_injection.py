"""Faults on purpose, for tests: a process that kills itself, hangs, grows or finds the disk full at a step of its work.

`COLOPHON_FAULT` describes one as JSON, see `Fault`. Where it is not set a step costs a look at a variable.
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
_LOOK_EVERY_SECONDS = 0.02
Step = Literal["before write", "mid-write", "before rename", "before record", "before manifest"]


class Fault(BaseModel):
    """What happens, where, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: Step
    action: Literal["kill", "hang", "grow", "disk full"]
    directory: Path
    """Holds a file for each time that the step was reached, whatever the process."""
    stage: str = ""
    """Only where the name of the stage begins so."""
    at: int = 1
    """It strikes when the step is reached for this time."""
    times: int = 1
    """And so often."""

    def strikes(self) -> bool:
        """Whether this is the time; counts it."""
        number = 1
        while True:
            try:
                os.close(os.open(self.directory / str(number), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                number += 1
            else:
                return self.at <= number < self.at + self.times


def reached(step: Step, stage: str = "") -> None:
    """Called before each step; returns unless a test wants a fault here.

    Raises:
        OSError: ENOSPC, where that is the fault.
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
    held = []
    while fault.action == "grow":
        held.append(bytearray(os.urandom(1 << 20) * 16))
    while not (fault.directory / "go").exists():  # a test may end it
        time.sleep(_LOOK_EVERY_SECONDS)
