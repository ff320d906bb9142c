"""The case where the answer is known: the exact losses are exact, and small models reach them through Colophon."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from colophon.shards.run_output import open_run
from colophon.trainer.config import TrainConfig
from colophon.trainer.model.decoder import Decoder
from tests.trainer.models import info_of, small_tokenizer

EXAMPLE = Path(__file__).parents[2] / "examples" / "known_answer"
MODULES = ("hidden_markov", "text_files", "measuring", "results", "promises", "figure", "study")


class Example(NamedTuple):
    """The modules of the example."""

    hidden_markov: Any
    promises: Any
    results: Any
    study: Any


@pytest.fixture(scope="module")
def example() -> Iterator[Example]:
    """Imported as `python examples/known_answer/study.py` imports them, and forgotten after the tests."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        yield Example(*(importlib.import_module(name) for name in Example._fields))
    finally:
        sys.path.remove(str(EXAMPLE))
        for name in MODULES:
            sys.modules.pop(name, None)


LENGTH = 4
"""Words of the texts whose probabilities are summed."""


@pytest.fixture(scope="module")
def process(example: Example) -> Any:
    return example.hidden_markov.draw_process(num_classes=3, num_states=2, num_words=4, seed=5)


@pytest.fixture(scope="module")
def texts(process: Any) -> Any:
    """int64 [256, 4]: every text of four words."""
    return np.array(list(itertools.product(range(process.num_words), repeat=LENGTH)))


@pytest.fixture(scope="module")
def exact(example: Example, process: Any, texts: Any) -> Any:
    """The exact losses of all texts, as if each had the class 1."""
    classes = np.ones(len(texts), np.int64)
    documents = example.hidden_markov.Documents(words=texts, classes=classes, control=classes)
    return example.hidden_markov.answer(process, documents)


def path_probability(process: Any, path: tuple[int, ...], *, kind: int, text: Any) -> float:
    """The probability of a path of states and a text, given the class."""
    moves = [process.transitions[one, after] for one, after in itertools.pairwise(path)]
    emitted = [process.emissions[kind, state, word] for state, word in zip(path, text, strict=True)]
    return float(math.prod([process.starts[path[0]], *moves, *emitted]))


def test_the_forward_algorithm_is_the_sum_over_paths(process: Any, texts: Any, exact: Any) -> None:
    paths = list(itertools.product(range(2), repeat=LENGTH))
    for text, kind in itertools.product((0, 57, 255), range(process.num_classes)):
        total = sum(path_probability(process, path, kind=kind, text=texts[text]) for path in paths)
        assert exact.by_class[text, kind].sum() == pytest.approx(-math.log(total), rel=1e-12)


def test_probabilities_of_all_texts_sum_to_one(exact: Any) -> None:
    """Also those of the first words, so the losses of each word are those of a distribution."""
    for losses in (exact.with_class, exact.without_class, exact.given(np.zeros(256, np.int64))):
        for words in range(1, LENGTH + 1):
            every = losses[:: 4 ** (LENGTH - words), :words]  # each text of so many words, once
            assert np.exp(-every.sum(axis=1)).sum() == pytest.approx(1, rel=1e-12)


def test_bayes(exact: Any) -> None:
    """log p(text | class) - log p(text) = log p(class | text) + log C, for every text."""
    gained = (exact.without_class - exact.with_class).sum(axis=1)
    assert gained == pytest.approx(math.log(3) - exact.class_after_text, abs=1e-12)
    assert exact.posterior.sum(axis=1) == pytest.approx(1)


def test_drawn_texts_have_the_exact_probabilities(example: Example, process: Any, exact: Any) -> None:
    drawn = example.hidden_markov.sample(process, num_documents=60_000, length=LENGTH, seed=3)
    numbers = drawn.words @ 4 ** np.arange(LENGTH)[::-1]
    expected = np.exp(-exact.without_class.sum(axis=1)) * 60_000
    found = np.bincount(numbers, minlength=len(expected))
    # Pearson's statistic of 256 texts has a mean of 255 and a standard deviation of 22.6.
    assert ((found - expected) ** 2 / expected).sum() < 255 + 5 * 22.6
    assert np.bincount(drawn.classes).tolist() == np.bincount(drawn.control).tolist()
    assert np.mean(drawn.classes == drawn.control) == pytest.approx(1 / 3, abs=0.02)


@pytest.fixture(scope="module")
def quick(example: Example, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[dict[str, Any]]]:
    """The quick study of the command, and its records."""
    work = tmp_path_factory.mktemp("known-answer")
    study = example.study.Study(work=work, output=work / "results.jsonl", device="cpu", **example.study.QUICK)
    return study, example.study.run(study, report=lambda line: None)


def test_tiny_models_reach_the_floors(example: Example, quick: tuple[Any, list[dict[str, Any]]]) -> None:
    """plain within 0.04 nats, prepend within 0.02, the gain by prompt length, and the cost of a wrong class."""
    found = example.promises.promises(quick[1])
    assert len(found) == 8
    assert [str(promise) for promise in found if not promise.holds] == []
    results = example.results.Results(quick[1])
    assert results.exact_gain[0] > 0.1  # the promises are about a difference larger than their limits
    assert results.exact_gain[-1] < results.exact_gain[0] / 2


def test_the_layouts_of_the_study_cut_no_document(quick: tuple[Any, list[dict[str, Any]]]) -> None:
    """So the first words of a document are always after bos, and documents of all layouts are the same."""
    study, _ = quick
    run = open_run(study.work / "run")
    for arm, documents in (("plain", 5), ("prepend", 4)):
        rows = run.packed(arm).rows([0, 1])
        assert rows.segments.max(axis=1).tolist() == [documents - 1] * 2
        assert (rows.roles != 0).all()


@pytest.mark.slow
def test_a_second_call_trains_what_is_missing(
    example: Example, quick: tuple[Any, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, records = quick
    *_, last = study.output.read_text().splitlines(keepends=True)
    study.output.write_text(study.output.read_text() + last[:-9])  # as a call that was killed leaves it
    trained: list[str] = []
    monkeypatch.setattr(example.study, "_trained", lambda config, name, **_: trained.append(name))
    assert example.study.run(study) == records
    assert [json.loads(line) for line in study.output.read_text().splitlines()] == records
    ended = example.study.Study(**{**vars(study), "seeds": 2, "minutes": 0.0})
    assert example.study.run(ended, report=lambda line: None) == records
    assert trained == []


def record(arm: str, *, loss: float, **more: Any) -> dict[str, Any]:
    return {"arm": arm, "seed": 0, "loss": [loss, 2 * loss], **more}


def test_promises_that_do_not_hold(example: Example) -> None:
    exact = {"words": [1, 2], "with_class": [2.0, 4.0], "without_class": [2.3, 4.4], "wrong_class": [3.0, 6.0]}
    exact |= {"class": 1.4, "class_after_text": 0.2}
    good = [
        record("plain", loss=2.22),
        record("prepend", loss=2.01, loss_wrong=[3.0, 6.0]),
        record("prepend-control", loss=2.23, loss_wrong=[2.23, 4.46]),
        record("append", loss=2.23, class_after_text=0.21),
        record("append-control", loss=2.22, class_after_text=1.41),
    ]
    bad = [
        record("plain", loss=2.25),
        record("prepend", loss=2.03, loss_wrong=[2.1, 4.2]),
        record("prepend-control", loss=2.25, loss_wrong=[2.27, 4.54]),
        record("append", loss=2.28, class_after_text=0.3),
        record("append-control", loss=2.25, class_after_text=1.3),
    ]
    held = example.promises.promises([exact, *good])
    assert [str(promise) for promise in held if "gain" not in promise.claim and not promise.holds] == []
    failed = example.promises.promises([exact, *bad])
    assert [str(promise) for promise in failed if "gain" not in promise.claim and promise.holds] == []
    leaks = [
        record("plain", loss=2.1),
        record("prepend-control", loss=2.1, loss_wrong=[2.1, 4.2]),
        record("append", loss=2.1, class_after_text=0.1),
        record("append-control", loss=2.1, class_after_text=1.4),
    ]
    leaking = example.promises.promises([exact, *leaks])
    below = ["plain: ", "prepend-control: ", "append: ", "append-control: ", "append: the class"]
    failing = [promise.claim for promise in leaking if not promise.holds]
    assert [claim.startswith(start) for claim, start in zip(failing, below, strict=True)] == [True] * 5
    first, second = (promise for promise in held if "gain" in promise.claim)
    assert (first.found.mean, second.found.mean) == (pytest.approx(0.21), pytest.approx(0.21))
    assert (first.holds, second.holds) == (False, False)  # the exact gains are 0.3 and 0.1


def test_the_page_has_the_results(example: Example) -> None:
    page = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    records = [json.loads(line) for line in (EXAMPLE / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert example.promises.markdown(records) in page, "paste the table that `promises.markdown` makes of results.jsonl"
    assert [str(promise) for promise in example.promises.promises(records) if not promise.holds] == []


def test_intervals_over_seeds_are_student_s(example: Example) -> None:
    """2.776 standard errors of five values: 1 ... 5 have a standard deviation of sqrt(2.5)."""
    estimate = example.results.Estimate(values=[1.0, 2.0, 3.0, 4.0, 5.0])
    assert estimate.half_width == pytest.approx(2.776 * math.sqrt(2.5 / 5))
    assert str(estimate) == "3.0000 ± 1.9629"
    assert str(example.results.Estimate(values=[3.0])) == "3.0000"


def test_the_model_for_a_gpu_has_30_million_weights(example: Example, tmp_path: Path) -> None:
    settings = example.study.MODELS["30m"]
    config = TrainConfig.model_validate({"layout": "plain", **settings})
    with torch.device("meta"):
        decoder = Decoder(config.model, tokenizer=info_of(small_tokenizer(tmp_path)))
    assert 28e6 < decoder.num_parameters < 32e6


@pytest.mark.slow
def test_all_promises_hold(example: Example, tmp_path: Path) -> None:
    """One seed of every layout, with the settings of the whole study, called as a user calls it."""
    output = tmp_path / "results.jsonl"
    figure = tmp_path / "figure.webp"
    options = ["--work", str(tmp_path), "--output", str(output), "--seeds", "1", "--device", "cpu"]
    assert example.study.main([*options, "--figure", str(figure)]) == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [each.get("arm") for each in records] == [None, *example.study.ARMS]
    assert figure.read_bytes()[:4] == b"RIFF"
