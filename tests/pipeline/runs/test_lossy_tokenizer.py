"""A run with a tokenizer that loses text: refused, or counted and shown; the trainer's commands work with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers

from tests.pipeline.project import colophon, manifest, run
from tests.shards.tokenizer.kinds import bpe, byte_level, with_added, word_piece

TOKENIZER = ("--set", "tokenizer={ path = 'own.json' }")


def save(tokenizer: Tokenizer) -> None:
    tokenizer.save("own.json")


@pytest.mark.parametrize("command", [["run"], ["tokenize"], ["pack"], ["run", "--dry-run"]])
def test_a_tokenizer_that_loses_text_is_refused_before_work(project: Path, command: list[str]) -> None:
    save(bpe())
    called = colophon(command[0], "recipe.toml", *command[1:], "--executor", "inline", *TOKENIZER)
    assert called.code == 2
    assert called.line.startswith("recipe.toml: tokenizer: own loses: '中' U+4E2D, 'я' U+044F, ")
    assert "--allow-lossy ([tokenizer] allow_lossy = true)" in called.line
    assert not (project / "out").exists()


def test_losses_are_counted_and_shown_where_they_are_allowed(project: Path) -> None:
    save(word_piece())
    called = run(*TOKENIZER, "--allow-lossy")
    assert (called.code, called.err) == (0, "")
    assert "tokenizer own loses: '中' U+4E2D" in called.out
    documents = json.loads((project / "out/report/summary.json").read_text())["documents"]
    records = manifest().outputs["tokens"].records
    for key in ("documents_lossy", "characters_lost", "tokens_unknown"):
        assert documents[key] == sum(record.counts[key] for record in records) > 0
    line = f"tokenizer: {documents['documents_lossy']:,} documents do not come back from their tokens, "
    assert line + f"{documents['characters_lost']:,} characters lost, " in called.out
    # the option is a permission, not a setting of the files: what only reads needs none
    for command in ("verify", "status"):
        assert colophon(command, "recipe.toml", *TOKENIZER).code == 0
    assert run(*TOKENIZER, "--set", "tokenizer.allow_lossy=true").code == 0
    assert run(*TOKENIZER).code == 2


def test_a_run_with_nfc_counts_the_documents_it_changes(project: Path) -> None:
    save(byte_level(normalizer=normalizers.NFC()))
    called = run(*TOKENIZER)
    assert (called.code, called.err) == (0, "")
    assert "tokenizer own: characters become canonically equivalent ones" in called.out
    assert "do not come back" not in called.out


def test_a_model_of_lossy_tokens_is_trained_evaluated_and_sampled(project: Path) -> None:
    save(word_piece())
    settings = (*TOKENIZER, "--set", "pack.sequence_length=128", "--set", "train.tiny.validation_rows=8")
    assert run(*settings, "--allow-lossy").code == 0
    for command in (["train"], ["evaluate", "--documents", "20"], ["generate", "--max-tokens", "5"]):
        called = colophon(command[0], "recipe.toml", "--name", "tiny", *command[1:], *settings)
        assert (called.code, called.err) == (0, ""), (command, called.err)


def test_an_added_token_that_swallows_spaces_is_refused(project: Path) -> None:
    save(with_added(AddedToken("<tool>", rstrip=True)))
    assert "changes: 'x <tool> y' to " in run(*TOKENIZER).line
