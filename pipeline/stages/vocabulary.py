"""The vocabulary of a worker: the one that the run was planned with, or an error of its machine."""

from __future__ import annotations

from dataclasses import dataclass

from colophon.pipeline.errors import NodeError, one_line
from colophon.shards.stores.retry import is_transient
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, TokenizerError, load_tokenizer


@dataclass(frozen=True)
class PlannedTokenizer:
    """The tokenizer that a run was planned with, for its workers."""

    config: TokenizerConfig
    num_meta_tokens: int
    sha256: str
    """See `Tokenizer.sha256`."""

    @staticmethod
    def of(tokenizer: Tokenizer, *, num_meta_tokens: int) -> PlannedTokenizer:
        """The description of a tokenizer that was loaded for the plan."""
        return PlannedTokenizer(tokenizer.config, num_meta_tokens, tokenizer.sha256)

    def load(self) -> Tokenizer:
        """Load it on this machine; takes up to a second.

        Raises:
            NodeError: its vocabulary is missing on this machine, or is a different one.
        """
        try:
            tokenizer = load_tokenizer(self.config, num_meta_tokens=self.num_meta_tokens)
        except (TokenizerError, OSError) as error:
            if is_transient(error):
                raise
            raise NodeError(f"tokenizer: {one_line(error)}") from error
        if tokenizer.sha256 != self.sha256:
            name = self.config.path or self.config.name
            raise NodeError(f"tokenizer {name}: differs from the one that the run was planned with")
        return tokenizer
