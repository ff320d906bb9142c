from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.likelihood import ContextSetting, prefix_of
from colophon.trainer.inference.sampling import SamplingSettings
from colophon.trainer.inference.trained_model import TrainedModel
from tests.trainer.inference.scored import CONTEXTS, META_TOKENS, by_hand, expected_prefix, ids_of, scorer_of
from tests.trainer.models import PREPEND, drawn_model, layout_for, small_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return small_tokenizer(tmp_path)


@pytest.fixture
def trained(tokenizer: Tokenizer) -> TrainedModel:
    return drawn_model(tokenizer)


@pytest.mark.parametrize("case", CONTEXTS)
def test_a_context_is_a_prefix_of_ids(tokenizer: Tokenizer, case: str) -> None:
    settings, context, described = CONTEXTS[case]
    found = prefix_of(context, layout=layout_for(tokenizer, settings), tokenizer=tokenizer)
    assert found == expected_prefix(tokenizer, described)


@pytest.mark.parametrize(
    ("settings", "context", "message"),
    [
        (PREPEND, "meta_tokens", "available: empty, meta, none"),
        ({"position": "plain"}, "empty", "available: none"),
        (META_TOKENS, "meta:topic=art", "no metadata before a text"),
        (PREPEND, "wrapped", "available: none, empty, meta, meta_tokens"),
        (PREPEND, {"place": "x"}, "available: topic, level"),
    ],
)
def test_a_context_that_the_layout_does_not_have_is_refused(
    tokenizer: Tokenizer, settings: dict[str, Any], context: ContextSetting, message: str
) -> None:
    with pytest.raises(TrainerError, match=message):
        prefix_of(context, layout=layout_for(tokenizer, settings), tokenizer=tokenizer)


@pytest.mark.parametrize("case", CONTEXTS)
@pytest.mark.parametrize("batch_size", [1, 5])
def test_likelihoods_equal_those_of_each_row_alone(
    trained: TrainedModel, tokenizer: Tokenizer, case: str, batch_size: int
) -> None:
    pairs = [("", "the"), ("the cat", " an"), ("on  ", "the thing"), ("a b c d e", " f g"), ("x", ""), ("th", "e")]
    split = [("", "the"), ("the cat", " an"), ("on", "  the thing"), ("a b c d e", " f g"), ("x", ""), ("th", "e")]
    scorer = scorer_of(trained, tokenizer, case, batch_size=batch_size)
    found = scorer.likelihoods(pairs)
    for (context, continuation), one in zip(split, found, strict=True):
        expected = by_hand(trained, scorer.prefix, ids_of(tokenizer, context), ids_of(tokenizer, continuation))
        assert (one.log_likelihood, one.is_greedy) == (pytest.approx(expected[0], abs=1e-4), expected[1])
    assert found[4].log_likelihood == 0
    assert found[4].is_greedy


def test_the_greedy_continuation_is_marked(trained: TrainedModel, tokenizer: Tokenizer) -> None:
    scorer = scorer_of(trained, tokenizer, "empty")
    settings = SamplingSettings(max_tokens=1, temperature=0)
    prompt = next(p for p in ("a", "the", "cat", "dog", "x y") if scorer.generate(p, settings=settings).isascii())
    text = scorer.generate(prompt, settings=settings)
    found = scorer.likelihoods([(prompt, text), (prompt, "zz")])
    expected = [by_hand(trained, scorer.prefix, ids_of(tokenizer, prompt), ids_of(tokenizer, t)) for t in (text, "zz")]
    assert [one.is_greedy for one in found] == [greedy for _, greedy in expected]


def test_a_context_too_long_for_a_row_is_cut_at_its_start_after_the_prefix(
    trained: TrainedModel, tokenizer: Tokenizer
) -> None:
    scorer = scorer_of(trained, tokenizer, "a field", max_length=20)
    context = "0123456789" * 5
    (found,) = scorer.likelihoods([(context, "xyz")])
    kept = ids_of(tokenizer, context)[-(20 + 1 - len(scorer.prefix) - 3) :]
    expected, _ = by_hand(trained, scorer.prefix, kept, ids_of(tokenizer, "xyz"))
    assert found.log_likelihood == pytest.approx(expected, abs=1e-4)
    assert scorer.num_cut == 1
    with pytest.raises(TrainerError, match="a continuation of 50 tokens; rows hold"):
        scorer.likelihoods([("", context)])
    with pytest.raises(TrainerError, match="the context has 7 tokens, and rows have 7"):
        scorer_of(trained, tokenizer, "a field", max_length=7)


@pytest.mark.parametrize("case", ["none", "meta_tokens"])
def test_a_long_text_is_scored_in_segments_after_the_prefix(
    trained: TrainedModel, tokenizer: Tokenizer, case: str
) -> None:
    scorer = scorer_of(trained, tokenizer, case, max_length=15)
    text = "".join(chr(ord("0") + k % 60) for k in range(2 * scorer.max_text_tokens + 4))
    ids = ids_of(tokenizer, text)
    assert len(ids) == 2 * scorer.max_text_tokens + 4
    room = scorer.max_text_tokens
    windows = [([], ids[:room]), ([], ids[room : 2 * room]), (ids[room + 4 : 2 * room], ids[2 * room :])]
    expected = sum(by_hand(trained, scorer.prefix, context, scored)[0] for context, scored in windows)
    found = scorer.text_likelihoods([text, "", "ab"])
    assert found[0] == pytest.approx(expected, abs=1e-3)
    assert found[1] == 0
    assert found[2] == pytest.approx(by_hand(trained, scorer.prefix, [], ids_of(tokenizer, "ab"))[0], abs=1e-4)


def test_generation_stops_at_the_first_string_and_is_greedy(trained: TrainedModel, tokenizer: Tokenizer) -> None:
    scorer = scorer_of(trained, tokenizer, "fields")
    settings = SamplingSettings(max_tokens=20, temperature=0)
    whole = scorer.generate("the cat", settings=settings)
    assert len(whole) > 5
    stop = whole[3:5]
    assert scorer.generate("the cat", settings=settings, until=["\0never", stop]) == whole[: whole.index(stop)]
    with pytest.raises(TrainerError, match="set max_gen_toks"):
        scorer.generate("the cat", settings=SamplingSettings(max_tokens=64))
