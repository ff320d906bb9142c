"""A loopback server and annotators of it, for all tests of `llm_tags`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from colophon.annotators.llm import asking
from colophon.annotators.llm.annotator import LlmAnnotator
from colophon.annotators.llm_tags import LlmTagsConfig
from tests.chat_server import ChatServer, chat_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setattr(asking, "_FIRST_PAUSE_SECONDS", 0.001)
    with chat_server() as running:
        yield running


@pytest.fixture
def build(server: ChatServer, tmp_path: Path) -> Callable[..., LlmAnnotator]:
    """Builds an annotator of the server's, with an own cache."""

    def built(**keys: Any) -> LlmAnnotator:
        settings = {"endpoint": server.endpoint, "model": "small", "cache": str(tmp_path / "cache"), **keys}
        return LlmTagsConfig.model_validate(settings).build("tags")

    return built
