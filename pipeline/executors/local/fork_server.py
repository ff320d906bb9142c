"""The server that local workers are forked from. Importing this module loads no library."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, resource_tracker

from colophon.pipeline.executors.environment import worker_environment

CONTEXT = get_context("forkserver")
_LONGEST_DIRECTORY = 103 - len("/pymp-12345678/listener-12345678")
"""Bytes: the path of a socket has at most 103 on macOS, and 107 on Linux."""
_WORKER_MODULE = "colophon.pipeline.executors.local.worker_process"


def start_fork_server() -> None:
    """Start the server that workers are forked from, if it does not run. It imports the stages; nobody waits for that.

    It ends by itself when this process and all workers have ended.
    """
    CONTEXT.set_forkserver_preload([_WORKER_MODULE])
    resource_tracker.ensure_running()  # the server needs it, and its start would unblock interrupts
    with worker_environment(), _interrupts_blocked(), _directory_for_a_socket():
        forkserver.ensure_running()


@contextmanager
def _directory_for_a_socket() -> Iterator[None]:
    """Let the server's socket be in a directory of this user's in /tmp, if the path of TMPDIR is too long for one."""
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_DIRECTORY:
        tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT for processes that are started in the block: Ctrl-C is the driver's, also while they import."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
