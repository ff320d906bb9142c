"""The progress of a pass: documents/s, MB/s and time left, live on a terminal, else as lines of text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from colophon.pipeline.stages.tasks import Outcome

_LINE_EVERY_SECONDS = 5.0


def watch(
    outcomes: Iterable[Outcome],
    *,
    name: str,
    total_bytes: int,
    total_tasks: int,
    console: Console,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Outcome]:
    """Yield the outcomes and show the progress of the pass, or stage, called `name`."""
    meter = Meter(name, total_bytes=total_bytes, total_tasks=total_tasks, clock=clock)
    with _Display(console, meter) as show:
        show(meter)
        for outcome in outcomes:
            meter.add(outcome)
            show(meter)
            yield outcome


class Meter:
    """The progress and speed of a pass."""

    def __init__(self, name: str, *, total_bytes: int, total_tasks: int, clock: Callable[[], float]) -> None:
        self.name = name
        self.total_bytes = max(total_bytes, 1)
        self.total_tasks = total_tasks
        self.tasks = self.bytes = self.documents = self.text_bytes = self.failed = 0
        self._clock = clock
        self._begun = clock()

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.tasks += 1
        self.bytes += outcome.task.partition.bytes
        if outcome.result is None:
            self.failed += 1
        else:
            self.documents += outcome.result.documents
            self.text_bytes += outcome.result.text_bytes

    @property
    def seconds(self) -> float:
        """Seconds since the pass began."""
        return max(self._clock() - self._begun, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds until the end, at the speed so far; None before the first outcome."""
        return self.seconds * (self.total_bytes - self.bytes) / self.bytes if self.bytes else None

    def line(self) -> str:
        """The progress as one line of text."""
        left = self.seconds_left
        parts = [
            f"{self.name}: {self.tasks}/{self.total_tasks} partitions",
            f"{self.documents:,} documents",
            f"{self.documents / self.seconds:,.0f} documents/s",
        ]
        if self.text_bytes:  # 0 where no annotator reads text
            parts.append(f"{self.text_bytes / self.seconds / 1e6:.1f} MB/s")
        if self.failed:
            parts.append(f"{self.failed} quarantined")
        if left is not None and self.tasks < self.total_tasks:
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Display:
    """Shows a meter live where the console is a terminal, else as a line every few seconds and at the end."""

    def __init__(self, console: Console, meter: Meter) -> None:
        self._console = console
        self._meter = meter
        self._last_line = 0.0
        self._live: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
            self._live = Progress(*columns, console=console)

    def __enter__(self) -> Callable[[Meter], None]:
        if self._live is not None:
            self._live.start()
            self._task = self._live.add_task(self._meter.name, total=self._meter.total_bytes)
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def _show(self, meter: Meter) -> None:
        if self._live is not None:
            self._live.update(self._task, completed=meter.bytes, description=meter.line())
        elif meter.tasks and (
            meter.tasks == meter.total_tasks or meter.seconds - self._last_line > _LINE_EVERY_SECONDS
        ):
            self._last_line = meter.seconds
            self._console.print(meter.line(), highlight=False, soft_wrap=True)
