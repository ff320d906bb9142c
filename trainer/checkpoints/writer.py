"""Checkpoints on their way to the disk: a thread writes one while the training continues.

A checkpoint of the paper's model is 18 GB, which take a disk a minute, and the GPU does nothing meanwhile. So the
training waits only for the copy of the tensors to the host, and for the checkpoint before it, if that is still being
written: one copy is in memory at most.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path

from colophon.trainer.errors import NotWrittenError

Write = Callable[[], Path]
"""Writes a checkpoint that nothing changes any more, and returns its path."""


class CheckpointWriter:
    """Writes one checkpoint at a time on a thread of its own; its methods are called by one other thread.

    As a context manager it waits at the end of the block, also where an error ended it, so that no checkpoint of an
    earlier step is lost. A second SIGINT does not wait.
    """

    def __init__(self, *, written: Callable[[Path], None], report: Callable[[str], None]) -> None:
        """`written` gets the path of each checkpoint once it is complete, on the thread that uses the writer; `report`
        a line where one was not written and a different error ends the block."""
        self._written, self._report = written, report
        self._writing: Future[Path] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif not issubclass(kind, KeyboardInterrupt):
            try:
                self.wait()
            except NotWrittenError as error:
                self._report(str(error))

    def start(self, write: Write) -> None:
        """Call `write` on the thread, after the checkpoint before it. Raises what that one raised."""
        self.wait()
        self._writing = future = Future[Path]()
        # Not an executor: the interpreter would wait for its thread after a second SIGINT.
        threading.Thread(target=_run, args=(write, future), name="colophon-checkpoint", daemon=True).start()

    def check(self) -> None:
        """Raise the error of the checkpoint under way if it has failed; does not wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the checkpoint under way is on disk.

        Raises:
            NotWrittenError: it could not be written.
        """
        if self._writing is not None:
            wait([self._writing])
            writing, self._writing = self._writing, None
            self._written(writing.result())


def _run(write: Write, future: Future[Path]) -> None:
    try:
        future.set_result(write())
    except BaseException as error:  # raised where the result is asked for
        future.set_exception(error)
