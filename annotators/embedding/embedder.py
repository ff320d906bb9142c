"""The interface of an embedder: from texts to vectors of one length."""

from __future__ import annotations

from typing import Protocol

from colophon.annotators.heads.head import Floats


class Embedder(Protocol):
    """A function from texts to vectors. It is built in each process, and never pickled."""

    @property
    def identity(self) -> str:
        """All that decides the vectors besides the text: a sha256, or a model's name and revision.

        A head is refused for an embedder of a different identity."""

    def load(self) -> None:
        """Load the model, before the first `embed`.

        Raises:
            AnnotatorError: it cannot be loaded.
        """

    def embed(self, texts: list[str]) -> Floats:
        """The vectors of texts, float32 [len(texts), dim]; a row with NaN is a text without a vector.

        Args:
            texts: not empty; no text is empty. Each row should depend on its own text alone, or scores change with
                the batch in which a document happens to be.
        """
