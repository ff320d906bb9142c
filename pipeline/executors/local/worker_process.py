"""The process of a local worker: answers tasks that come through a pipe until the driver closes it or ends.

The fork server imports this module once, with all that a stage needs, and every worker is a fork of it: a worker starts
in milliseconds and shares the pages of the libraries.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler

import pyarrow as pa

from colophon.pipeline.executors.local.output import print_to

# The stages are imported for the fork server, so that no worker has to.
from colophon.pipeline.executors.worker import WorkerProcess, greeting
from colophon.pipeline.stages import annotation, packing, tokenization  # noqa: F401
from colophon.pipeline.stages.tasks import Task

pa.array([None])  # pyarrow's first array imports pandas, if it is installed: once, not in every worker

Message = tuple[int, bytes | None, Task]
"""The stage's number, the pickled stage if this worker has not got it yet, and a task of it."""


def serve(connection: Connection, output: Connection, environment: Mapping[str, str], most_bytes: int | None) -> None:
    """Send a greeting, then a reply to each message. Return when the driver closes the connection.

    Args:
        connection: the worker's end of the pipe.
        output: the pipe to which the process prints.
        environment: all environment variables; the fork server may have been started with others.
        most_bytes: see `WorkerProcess`.
    """
    print_to(output)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the driver ends its workers
    gc.freeze()  # a collection would touch, and so copy, the pages that all workers share
    threading.Thread(target=_end_with_the_driver, name="driver", daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    worker = WorkerProcess(most_bytes)
    stage = b""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(greeting())
        while True:
            message: Message = connection.recv()
            number, pickled, task = message
            stage = pickled or stage
            connection.send(worker.answer(task, number=number, stage=partial(ForkingPickler.loads, stage)))


def _end_with_the_driver() -> None:
    """End this process when the driver's ends, however it ends."""
    driver = parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)
