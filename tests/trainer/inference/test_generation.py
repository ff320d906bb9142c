from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from colophon.shards.layouts import parse_layout
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.contexts import TrainedLayout
from colophon.trainer.inference.generation import context_name, context_prefix, generate, guided_logits
from colophon.trainer.inference.sampling import SamplingSettings
from colophon.trainer.inference.trained_model import TrainedModel
from tests.trainer.counting import (
    NUM_COUNTS,
    SEQUENCE_LENGTH,
    CountingTokenizer,
    count,
    counting_layout,
    random_model,
    train_counting,
    wrapped,
    write_counting_run,
)
from tests.trainer.runs import SPECIAL, TOKENIZER

Learnt = tuple[TrainedModel, TrainedLayout]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_counting_run(tmp_path_factory.mktemp("counting"))


@pytest.fixture(scope="module")
def learnt(output: Path) -> Learnt:
    return train_counting(output, "prepend", steps=300)


def drawn(**model: Any) -> TrainedModel:
    """A model with random weights of a spread so wide that its logits differ."""
    return random_model(masked_ids=(SPECIAL.pad,), **{"init_std": 0.3, **model})


def samples(trained: TrainedModel, layout: TrainedLayout, prefix: list[int], prompt: list[int], **settings: Any) -> Any:
    """Each sample's tokens."""
    wanted = SamplingSettings(**{"max_tokens": 12, **settings})
    steps = list(generate(trained, layout, prefix=prefix, prompt=prompt, settings=wanted))
    return [[step[i] for step in steps if step[i] is not None] for i in range(wanted.num_samples)]


@pytest.mark.parametrize("guidance", [None, 0.0, 0.5, 1.0, 2.5])
def test_greedy_tokens_equal_those_of_a_model_without_a_cache(guidance: float | None) -> None:
    trained, layout = drawn(qk_norm=True), counting_layout("prepend")
    prompt, prefix = [3, 9], wrapped(4)
    (found,) = samples(trained, layout, prefix, prompt, temperature=0.0, guidance=guidance)
    assert len(found) >= 5
    for i, token in enumerate(found):
        context, empty = (
            trained.logits(torch.tensor([[*start, *prompt, *found[:i]]]))[0, -1, : SPECIAL.eos + 1]
            for start in (prefix, wrapped(None))
        )
        logits = context if guidance is None else empty + guidance * (context - empty)
        logits[SPECIAL.bos] = -math.inf
        assert token == logits.argmax()


def test_guidance_0_and_1_give_exactly_the_logits_of_one_context() -> None:
    empty, context = torch.randn((2, 3, 100), generator=torch.Generator().manual_seed(0)) * 100
    assert torch.equal(guided_logits([empty, context], 0.0), empty)
    assert torch.equal(guided_logits([empty, context], 1.0), context)
    torch.testing.assert_close(guided_logits([empty, context], 1.5), empty + 1.5 * (context - empty))
    assert guided_logits([context], None) is context


def test_samples_at_guidance_0_and_1_equal_those_of_one_context() -> None:
    trained, layout = drawn(), counting_layout("prepend")

    def at(prefix: list[int], guidance: float | None) -> Any:
        return samples(trained, layout, prefix, [3], guidance=guidance, temperature=1.0, num_samples=3, seed=5)

    free, conditioned = at(wrapped(None), None), at(wrapped(4), None)
    assert free != conditioned
    assert at(wrapped(4), 0.0) == free
    assert at(wrapped(4), 1.0) == conditioned
    assert at(wrapped(4), 3.0) not in (free, conditioned)


@pytest.mark.parametrize("guidance", [None, 1.0, 1.5])
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_model_counts_in_the_steps_that_its_metadata_names(learnt: Learnt, step: int, guidance: float | None) -> None:
    trained, layout = learnt
    prefix = context_prefix(layout, context=None, metadata={"step": str(step)}, encoder=CountingTokenizer())
    assert prefix == wrapped(step)
    for start in (0, 7, 13):
        (found,) = samples(trained, layout, prefix, [start], temperature=0.0, max_tokens=8, guidance=guidance)
        assert len(found) >= 3  # the shortest texts have four tokens; the prompt's token does not reveal the step
        assert [start, *found] == count(start, step, length=1 + len(found))


def test_a_sample_depends_on_the_seed_and_its_number_alone() -> None:
    trained, layout = drawn(init_std=0.1), counting_layout("plain")
    prefix = layout.prefix(None)
    three = samples(trained, layout, prefix, [1], num_samples=3, temperature=1.0)
    assert three == samples(trained, layout, prefix, [1], num_samples=3, temperature=1.0)
    assert three[:1] == samples(trained, layout, prefix, [1], num_samples=1, temperature=1.0)
    assert sum(map(bool, three)) == 3
    assert three[0] != three[1] != three[2]
    assert three != samples(trained, layout, prefix, [1], num_samples=3, temperature=1.0, seed=1)
    greedy = samples(trained, layout, prefix, [1], num_samples=3, temperature=0.0)
    assert greedy[0] == greedy[1] == greedy[2]


@pytest.mark.parametrize("position", ["plain", "prepend", "append", "meta_tokens"])
def test_special_ids_are_never_drawn(position: str) -> None:
    trained, layout = drawn(), counting_layout(position)
    found = samples(trained, layout, layout.prefix(None), [], num_samples=64, temperature=50.0, max_tokens=40)
    assert {token for sample in found for token in sample} == set(range(60))
    ended = [len(sample) < 40 for sample in found]
    assert any(ended)  # by eos, which is not in the samples


def test_a_sample_ends_at_eos_and_the_others_continue(learnt: Learnt) -> None:
    trained, layout = learnt
    settings = SamplingSettings(num_samples=30, max_tokens=40, temperature=1.0)
    steps = list(generate(trained, layout, prefix=wrapped(3), prompt=[1], settings=settings))
    lengths = [sum(step[i] is not None for step in steps) for i in range(30)]
    assert len(set(lengths)) > 3
    assert len(steps) == max(lengths)
    for i, length in enumerate(lengths):
        assert all((step[i] is not None) == (k < length) for k, step in enumerate(steps))


def test_metadata_after_a_text_ends_it(output: Path) -> None:
    trained, layout = train_counting(output, "append", steps=150)
    found = samples(trained, layout, layout.prefix(None), [2, 4], num_samples=20, max_tokens=40, temperature=0.3)
    assert min(map(len, found)) < 30
    assert all(token < NUM_COUNTS for sample in found for token in sample)


def test_only_ids_that_text_can_have_are_drawn() -> None:
    trained, layout = drawn(), counting_layout("plain")
    text_ids = np.zeros(TOKENIZER.num_ids, bool)
    text_ids[10:20] = True
    settings = SamplingSettings(num_samples=20, temperature=50.0)
    steps = list(generate(trained, layout, prefix=[SPECIAL.bos], prompt=[], settings=settings, text_ids=text_ids))
    assert {token for step in steps for token in step if token is not None} == set(range(10, 20))


def test_a_row_is_no_longer_than_a_training_row() -> None:
    trained, layout = drawn(), counting_layout("prepend")

    def longest(**settings: Any) -> int:
        found = samples(trained, layout, wrapped(4), [5], num_samples=64, temperature=50.0, **settings)
        return max(map(len, found))

    assert longest() == 12
    assert longest(max_tokens=None) == longest(max_tokens=44) == 44
    with pytest.raises(
        TrainerError, match="5 tokens; the model was trained on rows of 48, which leaves 44 to generate"
    ):
        longest(max_tokens=45)


def prefix_of(position: str, context: Any = None, **metadata: str) -> list[int]:
    return context_prefix(counting_layout(position), context=context, metadata=metadata, encoder=CountingTokenizer())


class TextTokenizer:
    """Encodes UTF-8 bytes as ids."""

    def encode_batch(self, texts: pa.Array) -> pa.ListArray:
        return pa.array([list(text.encode()) for text in texts.to_pylist()], pa.list_(pa.uint16()))

    def decode(self, ids: Any) -> str:
        return bytes(map(int, ids)).decode()


def test_metadata_is_formatted_as_packing_formats_it() -> None:
    """Values are given as text; the template's formats say which are numbers and dates."""
    tokenizer = TextTokenizer()
    settings = {"position": "prepend", "template": "{date:%B %Y} {score:.1f} {n:,} {topic:.3}"}
    layout = TrainedLayout(
        name="x", layout=parse_layout(settings, where="test"), sequence_length=SEQUENCE_LENGTH, special=SPECIAL
    )
    given = {"date": "2013-05-18T05:48:54Z", "score": "3.25", "n": "12345", "topic": "Games"}
    prefix = context_prefix(layout, context=None, metadata=given, encoder=tokenizer)
    columns = {
        "date": pa.array([dt.datetime(2013, 5, 18, 5, 48, 54, 0, dt.timezone.utc)], pa.timestamp("us", "UTC")),
        "score": pa.array([3.25], pa.float32()),
        "n": pa.array([12345]),
        "topic": pa.array(["Games"]),
    }
    (packed,) = layout.metadata(columns, num_documents=1, encoder=tokenizer)
    assert prefix == layout.prefix(packed)
    assert tokenizer.decode(prefix[2:-1]) == "May 2013 3.2 12,345 Gam"
    only = context_prefix(layout, context=None, metadata={"score": "3"}, encoder=tokenizer)
    assert tokenizer.decode(only[2:-1]) == " 3.0  "
    for name, value in (("score", "high"), ("date", "May"), ("date", "now")):
        with pytest.raises(TrainerError, match=rf"^layout 'x': {name}: '{value}' is no "):
            context_prefix(layout, context=None, metadata={name: value}, encoder=tokenizer)


def test_prefixes_of_each_context() -> None:
    bos, boc, eoc = SPECIAL.bos, SPECIAL.boc, SPECIAL.eoc
    assert prefix_of("plain") == prefix_of("append") == prefix_of("prepend", "none") == [bos]
    assert prefix_of("prepend") == prefix_of("prepend", "empty") == prefix_of("meta_tokens", "empty") == [bos, boc, eoc]
    assert prefix_of("prepend", step="3") == prefix_of("prepend", "meta", step="3") == wrapped(3)
    assert prefix_of("meta_tokens") == [bos, boc, 65, 66, 67, eoc]
    assert prefix_of("meta_tokens", "none") == [bos]


@pytest.mark.parametrize(
    ("arguments", "metadata", "message"),
    [
        (("prepend",), {"strid": "3"}, "'prepend' has no metadata field 'strid' before a text; available: step"),
        (("append",), {"step": "3"}, "'append' has no metadata field 'step' before a text; available: none"),
        (("meta_tokens",), {"url": "a"}, "'meta_tokens' has no metadata field 'url' before a text; available: none"),
        (("plain", "empty"), {}, "layout 'plain' has no context 'empty'; available: none"),
        (("prepend", "meta_tokens"), {}, "'prepend' has no context 'meta_tokens'; available: empty, meta, none"),
        (("prepend", "meta"), {}, "context 'meta' needs metadata"),
        (("prepend", "empty"), {"step": "3"}, "context 'empty' has no place for metadata"),
    ],
)
def test_invalid_contexts_are_refused(arguments: tuple[Any, ...], metadata: dict[str, str], message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        prefix_of(*arguments, **metadata)
    with pytest.raises(TrainerError, match="unknown condition 'true'; available: none, empty, meta, meta_tokens"):
        context_name("true")


@pytest.mark.parametrize("prefix", [[SPECIAL.bos], wrapped(None)])
def test_guidance_needs_a_context(prefix: list[int]) -> None:
    with pytest.raises(TrainerError, match="guidance goes from the empty wrapper to a context"):
        samples(drawn(), counting_layout("prepend"), prefix, [1], guidance=2.0)
