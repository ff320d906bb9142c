"""The live page of `colophon view`, served by a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from colophon.pipeline.reports.view.calls import Calls
from colophon.pipeline.reports.view.server import ViewServer


@contextmanager
def served(calls: Calls) -> Iterator[ViewServer]:
    """Serve the page until the block ends."""
    with ViewServer(calls) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
