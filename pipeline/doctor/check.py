"""One finding about the installation or the machine, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from colophon.pipeline.errors import one_line
from colophon.shards.common.errors import ColophonError

State = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    name: str
    state: State
    found: str
    """The result, in one line."""
    remedy: str = ""
    """The next step; empty where nothing is to be done."""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The finding as a JSON value."""
        return asdict(self)


Check = Callable[[], Finding | Iterable[Finding]]
"""A check; it may have several findings. It may raise ColophonError, which is a finding of its own."""


def findings(checks: dict[str, Check], *, skip: Iterable[str]) -> Iterator[Finding]:
    """Run the checks in order and yield what they find. No check ends the others, whatever it raises."""
    skipped = set(skip)
    for name, check in checks.items():
        if name in skipped:
            yield Finding(name=name, state="skipped", found="--skip")
            continue
        begun = time.monotonic()
        try:
            result = check()
            found = [result] if isinstance(result, Finding) else list(result)
        except ColophonError as error:
            found = [Finding(name=name, state="failed", found=one_line(error))]
        except Exception as error:  # a library that is broken is what is searched for
            found = [Finding(name=name, state="failed", found=f"{type(error).__name__}: {one_line(error)}")]
        seconds = round(time.monotonic() - begun, 2)
        yield from (replace(one, seconds=seconds) for one in found[:1])
        yield from found[1:]
