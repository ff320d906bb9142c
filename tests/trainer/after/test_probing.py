from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.runs import NUM_TEXT_IDS, SPECIAL, TINY_MODEL, TOKENIZER
from trainer.after.intervals import Estimate
from trainer.after.probe_labels import MIN_DOCUMENTS, label_documents
from trainer.after.probe_report import ColumnReport, ProbeReport, ProbeResult, Score, draw_probes
from trainer.after.probes import Parts, ScoreDraws, _threads, fit_probes
from trainer.after.probing import document_states
from trainer.after.rows import padded_batches
from trainer.config import ModelConfig
from trainer.errors import TrainerError
from trainer.model import Decoder

NumPyArray = np.ndarray[Any, Any]
HIDDEN = (64, 64)


def thirds(n: int) -> Parts:
    train, validation, test = np.split(np.arange(n), [n // 2, 3 * n // 4])
    return Parts(train=train, validation=validation, test=test)


def planted(*, n: int = 400, d: int = 8, num_classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, NumPyArray]:
    """States [1, n, d] of which a linear map tells the class; one feature is constant, one is large."""
    random = np.random.default_rng(seed)
    states = random.normal(size=(n, d)).astype(np.float32)
    labels = (states @ random.normal(size=(d, num_classes))).argmax(axis=1)
    states[:, 0] *= 1000
    return torch.from_numpy(np.column_stack([states, np.full(n, 7, np.float32)]))[None], labels


def accuracy(predicted: NumPyArray, labels: NumPyArray, parts: Parts) -> float:
    return float((predicted == labels[parts.test]).mean())


@pytest.mark.parametrize("hidden_sizes", [(), HIDDEN])
def test_a_label_that_is_linear_in_the_states_is_found_and_a_shuffled_one_is_not(hidden_sizes: tuple[int, ...]) -> None:
    features, labels = planted()
    parts = thirds(len(labels))
    shuffled = np.random.default_rng(1).permutation(labels)
    found = {}
    for name, given_labels in (("true", labels), ("shuffled", shuffled)):
        fit = fit_probes(features, given_labels, parts, num_classes=3, hidden_sizes=hidden_sizes, seed=0)
        found[name] = accuracy(fit.classes[0], labels, parts)
    assert found["true"] > 0.85
    assert found["shuffled"] < 0.6


def test_what_is_not_linear_is_found_by_the_mlp_alone() -> None:
    states = np.random.default_rng(0).normal(size=(800, 2)).astype(np.float32)
    labels = (states[:, 0] * states[:, 1] > 0).astype(np.int64)
    parts, features = thirds(800), torch.from_numpy(states)[None]
    linear, mlp = (
        fit_probes(features, labels, parts, num_classes=2, hidden_sizes=sizes, seed=0).classes[0]
        for sizes in ((), HIDDEN)
    )
    assert accuracy(mlp, labels, parts) > 0.9
    assert accuracy(linear, labels, parts) < 0.65


def test_a_probe_alone_is_the_same_as_among_others() -> None:
    features, labels = planted()
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    parts = thirds(len(labels))
    fit: Any = {"num_classes": 3, "hidden_sizes": HIDDEN, "seed": 0}
    together = fit_probes(torch.cat([noise, features]), labels, parts, **fit)
    for number, alone in enumerate((noise, features)):
        one = fit_probes(alone, labels, parts, **fit)
        assert (one.classes[0] == together.classes[number]).mean() > 0.98  # products of other sizes round otherwise
        assert abs(one.epochs[0] - together.epochs[number]) <= 3
    assert together.epochs[0] < together.epochs[1]  # noise is learnt by heart: its validation loss soon rises


def test_labels_of_test_documents_are_not_looked_at() -> None:
    features, labels = planted()
    parts = thirds(len(labels))
    hidden = labels.copy()
    hidden[parts.test] = 0
    first, second = (
        fit_probes(features, given, parts, num_classes=3, hidden_sizes=(), seed=0).classes for given in (labels, hidden)
    )
    np.testing.assert_array_equal(first, second)


def test_small_probes_are_fitted_on_one_thread_and_threads_are_given_back() -> None:
    torch.set_num_threads(2)
    try:
        for operations, threads in ((10, 1), (10**12, 2)):
            with _threads(operations):
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), _threads(10):
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def brute_scores(truth: list[int], predicted: list[int]) -> tuple[float, float]:
    f1 = []
    for label in set(truth):
        hits = sum(t == p == label for t, p in zip(truth, predicted, strict=True))
        f1.append(2 * hits / (truth.count(label) + predicted.count(label)))
    return sum(t == p for t, p in zip(truth, predicted, strict=True)) / len(truth), sum(f1) / len(f1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(10, 14)), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_scores_are_those_of_brute_force_in_the_sample_and_in_every_draw(rows: list[tuple[int, int, int]]) -> None:
    truth, predicted, groups = (np.array(column) for column in zip(*rows, strict=True))
    draws = ScoreDraws(truth, groups, num_classes=4, seed=3)
    names = np.unique(groups)
    counts = np.random.default_rng(3).multinomial(len(names), np.full(len(names), 1 / len(names)), size=1000)
    for i, weights in ((0, np.ones(len(names), int)), (1, counts[0]), (1000, counts[999])):
        drawn = [row for name, times in zip(names, weights, strict=True) for row in rows if row[2] == name] * 1
        drawn = [row for row in drawn for _ in range(int(weights[np.flatnonzero(names == row[2])[0]]))]
        expected = brute_scores([row[0] for row in drawn], [row[1] for row in drawn])
        assert (draws.accuracy(predicted)[i], draws.macro_f1(predicted)[i]) == pytest.approx(expected)


def test_an_interval_holds_the_score_and_is_wider_where_documents_are_alike() -> None:
    random = np.random.default_rng(0)
    truth, hit_groups = np.zeros(400, np.int64), random.random(20) < 0.5
    groups = np.repeat(np.arange(20), 20)
    predicted = np.where(hit_groups[groups], 0, 1)
    width = {}
    for name, of in (("documents", np.arange(400)), ("groups", groups)):
        draws = ScoreDraws(truth, of, num_classes=2, seed=0)
        found = draws.estimate(draws.accuracy(predicted))
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        width[name] = found.high - found.low
    assert width["groups"] > 3 * width["documents"]
    alone = ScoreDraws(truth, np.zeros(400), num_classes=2, seed=0)
    assert alone.estimate(alone.accuracy(predicted)).low is None


documents = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.one_of(st.none(), st.integers(0, 15).map(str))),
    min_size=150,
    max_size=300,
)


@given(documents)
@settings(max_examples=40, deadline=None)
def test_parts_share_no_group_and_every_document_is_in_one_or_counted(
    rows: list[tuple[str | None, str | None]],
) -> None:
    values, groups = pa.array([row[0] for row in rows]), pa.array([row[1] for row in rows])
    try:
        found = label_documents(values, groups, name="topic", split_by="domain")
    except TrainerError as error:
        assert "fewer than two classes" in str(error)
        return
    assert found.split_by == "domain"
    parts = list(found.parts.named().values())
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(found.rows)))
    in_part = [{rows[found.rows[i]][1] for i in part} for part in parts]
    assert not in_part[0] & in_part[1]
    assert not in_part[0] & in_part[2]
    assert not in_part[1] & in_part[2]
    assert [found.classes[label] for label in found.labels] == [rows[row][0] for row in found.rows]
    left_out = [count for reason, count in found.left_out.items() if reason.startswith("documents")]
    assert len(found.rows) + sum(left_out) == len(rows)
    for counts in found.counts().values():
        assert min(counts.values()) >= 3
        assert sum(counts.values()) >= MIN_DOCUMENTS
    assert sum(found.counts()[found.classes[0]].values()) == (found.labels == 0).sum()


def test_parts_have_their_shares_where_groups_are_small() -> None:
    random = np.random.default_rng(0)
    values = pa.array(random.choice(["a", "b", "c"], 3000, p=[0.6, 0.3, 0.1]))
    found = label_documents(values, pa.array(random.integers(0, 300, 3000)), name="topic", split_by="domain")
    for counts in found.counts().values():
        shares = np.array(list(counts.values())) / sum(counts.values())
        np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.03)


def test_rare_classes_and_those_of_too_few_groups_are_left_out_and_counted() -> None:
    values = ["a"] * 60 + ["b"] * 60 + ["rare"] * 19 + ["one domain"] * 50 + [None] * 7
    groups = [str(i % 12) for i in range(139)] + ["x"] * 50 + ["y"] * 7
    found = label_documents(pa.array(values), pa.array(groups), name="topic", split_by="domain")
    assert found.classes == ["a", "b"]
    assert found.left_out == {
        "documents_without_value": 7,
        "rare_classes": 2,
        "documents_of_rare_classes": 69,
        "undivided_classes": 0,
        "documents_of_undivided_classes": 0,
    }


def test_a_class_that_is_nearly_all_in_one_group_is_left_out() -> None:
    values = ["a"] * 60 + ["b"] * 60 + ["c"] * 60
    groups = [str(i % 12) for i in range(120)] + ["x"] * 58 + ["1", "2"]
    found = label_documents(pa.array(values), pa.array(groups), name="topic", split_by="domain")
    assert found.classes == ["a", "b"]
    assert (found.left_out["undivided_classes"], found.left_out["documents_of_undivided_classes"]) == (1, 60)


def test_a_host_lies_in_its_domain_alone_and_is_split_by_document() -> None:
    hosts = [f"{i % 3}.example.org" for i in range(120)]
    found = label_documents(pa.array(hosts), pa.array(["example.org"] * 120), name="url_host", split_by="domain")
    assert found.split_by == "document"
    assert len(found.classes) == 3
    assert Counter(map(len, found.parts.named().values())) == Counter({72: 1, 24: 2})


def test_numbers_with_a_fraction_make_classes_of_about_equal_size() -> None:
    scores = np.random.default_rng(0).random(500)
    found = label_documents(pa.array(scores), None, name="quality_score", split_by="document")
    assert len(found.classes) == 5
    assert np.bincount(found.labels).min() > 95


def test_too_few_classes_are_told_with_what_there_is() -> None:
    with pytest.raises(TrainerError, match=r"column 'topic' has fewer than two classes .* largest are a 40, b 5;"):
        label_documents(pa.array(["a"] * 40 + ["b"] * 5), None, name="topic", split_by="document")


def texts(*lengths: int) -> list[NumPyArray]:
    random = np.random.default_rng(0)
    return [random.integers(0, NUM_TEXT_IDS, length).astype(np.uint16) for length in lengths]


def small_model(**changes: Any) -> Decoder:
    model = Decoder(ModelConfig.model_validate({**TINY_MODEL, **changes}), tokenizer=TOKENIZER)
    model.initialise(seed=0)
    return model.eval()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 80), st.sampled_from([1, 2]))
@settings(deadline=None)
def test_batches_hold_every_row_once_within_their_size(lengths: list[int], max_size: int, cost: int) -> None:
    rows = texts(*lengths)
    seen = []
    for batch, input_ids, of_length in padded_batches(rows, max_size=max_size, cost=cost):
        assert len(batch) == 1 or len(batch) * input_ids.shape[1] ** cost <= max_size
        assert input_ids.shape == (len(batch), max(of_length))
        for number, ids, length in zip(batch, input_ids, of_length, strict=True):
            seen.append(int(number))
            np.testing.assert_array_equal(ids[:length], rows[number])
            assert not ids[length:].any()
    assert sorted(seen) == list(range(len(rows)))


def test_states_are_those_of_each_document_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.after.probing._TOKENS_AT_ONCE", 40)  # several batches
    model, documents = small_model(), texts(5, 1, 17, 9, 16, 2)
    prefix = [SPECIAL.bos, SPECIAL.boc, SPECIAL.eoc]
    found = document_states(model, prefix, documents, layers=[0, 2])
    assert found.shape == (2, 2, len(documents), TINY_MODEL["hidden_size"])
    for number, text in enumerate(documents):
        ids = torch.tensor([[*prefix, *text.tolist()]])
        seen: list[torch.Tensor] = []
        with torch.no_grad():
            model.hidden_states(ids, torch.arange(ids.shape[1])[None].int(), None, visit=seen.append)
        for layer, states in zip((0, 1), (seen[0], seen[2]), strict=True):
            torch.testing.assert_close(found[layer, 0, number], states[0, -1], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(found[layer, 1, number], states[0, len(prefix) :].mean(0), rtol=1e-4, atol=1e-6)


def score(value: float, *, interval: bool = True) -> Score:
    estimate = Estimate(value, value - 0.1, value + 0.1) if interval else Estimate(value, None, None)
    return Score(accuracy=estimate, macro_f1=estimate)


@pytest.mark.parametrize("interval", [True, False])
def test_curves_have_a_line_for_each_probe_and_control(interval: bool) -> None:
    results = [
        ProbeResult(
            layer=layer,
            states=states,
            probe=kind,
            model=model,
            score=score(0.3 + layer / 10, interval=interval),
            accuracy_over_untrained=None,
            epochs=3,
        )
        for layer in (0, 1, 2)
        for states in ("last", "mean")
        for kind in ("linear", "mlp")
        for model in ("trained", "untrained", "shuffled")
    ]
    columns = [
        ColumnReport(
            column=name,
            split_by="document",
            classes={"a": {"train": 9, "validation": 3, "test": 3}, "b": {"train": 9, "validation": 3, "test": 3}},
            groups={"train": 18, "validation": 6, "test": 6},
            left_out={},
            majority=score(0.4),
            results=results,
        )
        for name in ("topic", "quality")
    ]
    report = ProbeReport(name="a", step=7, context="none", documents=30, crop=8, seed=0, columns=columns)
    figure = draw_probes(report)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert len(axes.lines) == 7  # two kinds of probe, each with its two controls, and the most frequent class
        assert len(axes.collections) == (2 if interval else 0)
        np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata(), float), [0.3, 0.4, 0.5])
    assert len(figure.legends) == 1
    assert report.as_dict()["columns"][1]["majority"]["accuracy"]["value"] == 0.4
