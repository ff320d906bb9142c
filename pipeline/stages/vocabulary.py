"""The vocabulary of a worker: the one that the run was planned with, or an error of its machine."""

from __future__ import annotations

from colophon.pipeline.errors import NodeError, one_line
from colophon.shards.stores.retry import is_transient
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, TokenizerError, load_tokenizer


def load_planned_tokenizer(config: TokenizerConfig, *, num_meta_tokens: int, sha256: str) -> Tokenizer:
    """Load the tokenizer whose vocabulary has this sha256.

    Raises:
        NodeError: it is missing on this machine, or is a different one.
    """
    try:
        tokenizer = load_tokenizer(config, num_meta_tokens=num_meta_tokens)
    except (TokenizerError, OSError) as error:
        if is_transient(error):
            raise
        raise NodeError(f"tokenizer: {one_line(error)}") from error
    if tokenizer.sha256 != sha256:
        raise NodeError(f"tokenizer {config.path or config.name}: differs from the one that the run was planned with")
    return tokenizer
