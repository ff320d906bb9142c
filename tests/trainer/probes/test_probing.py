from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.config import ModelConfig
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.bootstrap import Estimate
from colophon.trainer.inference.padding import padded_batches
from colophon.trainer.model import Decoder
from colophon.trainer.probes.features import conditioned
from colophon.trainer.probes.fits import Fit, Split, threads_for
from colophon.trainer.probes.labels import MIN_DOCUMENTS, label_documents
from colophon.trainer.probes.linear import STRENGTHS, TOLERANCE, fit_linear, loss_and_gradient, minimise
from colophon.trainer.probes.mlp import LEARNING_RATES, MIN_PATIENCE, fit_mlp
from colophon.trainer.probes.notes import notes
from colophon.trainer.probes.probing import _warnings
from colophon.trainer.probes.report import (
    ClassSize,
    ColumnReport,
    Excluded,
    ProbeReport,
    ProbeResult,
    Score,
    draw_probes,
)
from colophon.trainer.probes.scores import ScoreDraws
from colophon.trainer.probes.states import document_states
from tests.trainer.runs import NUM_TEXT_IDS, SPECIAL, TINY_MODEL, TOKENIZER

HIDDEN = (64, 64)


def thirds(n: int) -> Split:
    train, validation, test = np.split(np.arange(n), [n // 2, 3 * n // 4])
    return Split(train=train, validation=validation, test=test)


def planted(*, n: int = 400, d: int = 8, num_classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, NumPyArray]:
    """States [1, n, d] whose class is a linear function of them; one feature is constant, one is large."""
    random = np.random.default_rng(seed)
    states = random.normal(size=(n, d)).astype(np.float32)
    labels = (states @ random.normal(size=(d, num_classes))).argmax(axis=1)
    states[:, 0] *= 1000
    return torch.from_numpy(np.column_stack([states, np.full(n, 7, np.float32)]))[None], labels


def dominated(*, n: int = 2000, d: int = 20, seed: int = 0) -> tuple[torch.Tensor, NumPyArray, NumPyArray]:
    """States [1, n, d] with one direction, along no axis, of 10,000 times the others' variance; classes of two
    normal distributions, apart along another direction of small variance; and the predictions of Bayes' rule."""
    random = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(random.normal(size=(d, d)))
    labels = random.integers(0, 2, n)
    along = random.normal(size=(n, d))
    along[:, 0] *= 100
    along[:, 1] += 2 * labels
    return torch.from_numpy((along @ directions.T).astype(np.float32))[None], labels, (along[:, 1] > 1).astype(np.int64)


def accuracy(predicted: NumPyArray, labels: NumPyArray, split: Split) -> float:
    return float((predicted == labels[split.test]).mean())


def fitted(kind: str, states: torch.Tensor, labels: NumPyArray, split: Split, *, num_classes: int = 3) -> list[Fit]:
    features = conditioned(states, split.train)
    if kind == "linear":
        return fit_linear(features, labels, split, num_classes=num_classes)
    return fit_mlp(features, labels, split, num_classes=num_classes, hidden_sizes=HIDDEN, seed=0)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_probes_learn_a_linear_label_and_no_shuffled_one(kind: str) -> None:
    features, labels = planted()
    split = thirds(len(labels))
    shuffled = np.random.default_rng(1).permutation(labels)
    (true,), (false,) = (fitted(kind, features, given_labels, split) for given_labels in (labels, shuffled))
    assert accuracy(true.classes, labels, split) > 0.85
    assert accuracy(false.classes, labels, split) < 0.6
    assert true.warning is None


def test_only_the_mlp_learns_a_label_that_is_not_linear() -> None:
    states = np.random.default_rng(0).normal(size=(800, 2)).astype(np.float32)
    labels = (states[:, 0] * states[:, 1] > 0).astype(np.int64)
    split, features = thirds(800), torch.from_numpy(states)[None]
    (linear,), (mlp,) = (fitted(kind, features, labels, split, num_classes=2) for kind in ("linear", "mlp"))
    assert accuracy(mlp.classes, labels, split) > 0.9
    assert accuracy(linear.classes, labels, split) < 0.65


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_direction_with_nearly_all_variance_does_not_hide_the_classes(kind: str) -> None:
    states, labels, bayes = dominated()
    split = thirds(len(labels))
    (fit,) = fitted(kind, states, labels, split, num_classes=2)
    assert fit.warning is None
    assert accuracy(fit.classes, labels, split) > accuracy(bayes[split.test], labels, split) - 0.02


def test_the_linear_fit_ends_where_the_gradient_vanishes() -> None:
    states, labels, _ = dominated()
    split = thirds(len(labels))
    features = conditioned(states, split.train)[0, split.train].double()
    given_labels, start = torch.from_numpy(labels[split.train]), torch.zeros(features.shape[1] + 1, 2).double()
    for strength in STRENGTHS:
        found = minimise(features, given_labels, strength, start, tolerance=TOLERANCE, max_iterations=500)
        weights = found.weights.clone().requires_grad_()
        logits = features @ weights[:-1] + weights[-1]
        loss = torch.nn.functional.cross_entropy(logits, given_labels) + strength / 2 * weights[:-1].square().sum()
        (gradient,) = torch.autograd.grad(loss, weights)
        assert float(gradient.norm()) <= TOLERANCE
        assert float(gradient.norm()) == pytest.approx(found.gradient_norm, rel=1e-3, abs=1e-12)
        own_loss, own_gradient = loss_and_gradient(weights.detach(), features, given_labels, strength)
        torch.testing.assert_close(own_loss, loss.detach())
        torch.testing.assert_close(own_gradient, gradient, rtol=1e-6, atol=1e-12)


def newton(features: NumPyArray, labels: NumPyArray, strength: float) -> float:
    """The least loss of two classes by iteratively reweighted least squares. Softmax weights of two classes are w/2 and
    -w/2, so their penalty is half of that on w."""
    x = np.column_stack([features, np.ones(len(features))])
    penalty = np.full(x.shape[1], strength / 2)
    penalty[-1] = 0
    w = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (p - labels) / len(x) + penalty * w
        w -= np.linalg.solve((x.T * (p * (1 - p))) @ x / len(x) + np.diag(penalty), gradient)
    assert np.abs(gradient).max() < 1e-12
    return float(np.logaddexp(0, -(2 * labels - 1) * (x @ w)).mean() + (penalty * w * w).sum() / 2)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_linear_fit_equals_that_of_newtons_method(strength: float) -> None:
    random = np.random.default_rng(3)
    features = random.normal(size=(300, 12)) * np.geomspace(1, 0.01, 12)
    labels = (features @ random.normal(size=12) + random.logistic(size=300) > 0.3).astype(np.int64)
    known, start = torch.from_numpy(features), torch.zeros(13, 2).double()
    found = minimise(known, torch.from_numpy(labels), strength, start, tolerance=TOLERANCE, max_iterations=500)
    loss, _ = loss_and_gradient(found.weights, known, torch.from_numpy(labels), strength)
    assert float(loss) == pytest.approx(newton(features, labels, strength), abs=1e-6)


def test_the_penalty_is_strong_for_noise_and_weak_for_a_signal() -> None:
    states, labels = planted(n=800)
    noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(0))
    split = thirds(len(labels))
    some, none = (fitted("linear", each, labels, split)[0].chosen for each in (states, noise))
    assert 100 * some <= none


def test_a_probe_that_stops_too_early_or_too_late_has_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    states, labels, _ = dominated(n=400)
    split = thirds(len(labels))
    monkeypatch.setattr("colophon.trainer.probes.linear._MAX_ITERATIONS", 0)
    monkeypatch.setattr("colophon.trainer.probes.linear.TOLERANCE", 1e-12)
    assert fitted("linear", states, labels, split, num_classes=2)[0].warning == "limit"
    monkeypatch.setattr("colophon.trainer.probes.mlp.MAX_EPOCHS", 3)
    assert fitted("mlp", states, labels, split, num_classes=2)[0].warning == "limit"
    monkeypatch.setattr("colophon.trainer.probes.mlp.MAX_EPOCHS", 40)
    labels[split.validation] = 1 - labels[split.validation]  # so everything that is learnt raises the validation loss
    (fit,) = fitted("mlp", states, labels, split, num_classes=2)
    assert (fit.epochs, fit.warning) == (1, "first_epoch")


def test_features_depend_on_training_documents_alone_and_have_variance_1() -> None:
    random = np.random.default_rng(0)
    states = random.normal(size=(2, 60, 9)) * np.geomspace(1, 1e3, 9)
    states[:, :, 4], states[1, :, 5] = 3, states[1, :, 6]  # one constant, two equal
    states[:, :, 7] *= np.where(np.arange(60) == 2, 50, 1)
    first, train = torch.from_numpy(states.astype(np.float32)), np.arange(40)
    changed = first.clone()
    changed[:, 40:] = 7
    features = conditioned(first, train)
    torch.testing.assert_close(features[:, :40], conditioned(changed, train)[:, :40])
    known = features[:, :40].double()
    torch.testing.assert_close(known.mean(dim=1), torch.zeros(2, 9).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(known.square().mean(dim=(1, 2)), torch.ones(2).double(), rtol=1e-4, atol=0)
    covariance = known.transpose(1, 2) @ known / 40
    diagonal = torch.diagonal(covariance, dim1=1, dim2=2)
    torch.testing.assert_close(covariance, torch.diag_embed(diagonal), rtol=0, atol=1e-4)
    assert [int((one > 1e-4).sum()) for one in diagonal] == [8, 7]
    torch.testing.assert_close(conditioned(first[:, :, :1] * 0, train), torch.zeros(2, 60, 1))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_probe_does_not_depend_on_the_others_in_its_batch(kind: str) -> None:
    features, labels = planted()
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
    split = thirds(len(labels))
    together = fitted(kind, torch.cat([noise, features]), labels, split)
    for number, states in enumerate((noise, features)):
        (alone,) = fitted(kind, states, labels, split)
        assert (
            alone.classes == together[number].classes
        ).mean() > 0.98  # products of different sizes round differently
        assert abs(alone.epochs - together[number].epochs) <= 3
        assert alone.chosen == together[number].chosen
    assert together[0].epochs < together[1].epochs  # there is less to find in noise


def test_an_mlp_waits_for_a_third_of_the_epochs_up_to_its_lowest_loss() -> None:
    states, labels = planted()
    split, steps, backward = thirds(len(labels)), 0, torch.autograd.backward

    def counted(loss: torch.Tensor) -> None:
        nonlocal steps
        steps += 1
        backward(loss)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "backward", counted)
        patch.setattr("colophon.trainer.probes.mlp.LEARNING_RATES", LEARNING_RATES[:1])
        (fit,) = fitted("mlp", states, labels, split)
    steps_an_epoch = 4  # 200 documents in batches of 64
    assert steps == steps_an_epoch * (fit.epochs + max(MIN_PATIENCE, fit.epochs // 3))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_labels_of_test_documents_are_not_read(kind: str) -> None:
    features, labels = planted()
    split = thirds(len(labels))
    hidden = labels.copy()
    hidden[split.test] = 0
    (first,), (second,) = (fitted(kind, features, given_labels, split) for given_labels in (labels, hidden))
    np.testing.assert_array_equal(first.classes, second.classes)


def test_small_steps_use_one_thread_and_the_number_is_restored() -> None:
    torch.set_num_threads(2)
    try:
        for operations, threads in ((10, 1), (10**12, 2)):
            with threads_for(operations):
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 2
        with pytest.raises(KeyError), threads_for(10):
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def brute_scores(truth: list[int], predicted: list[int], classes: set[int]) -> tuple[float, float]:
    f1 = []
    for label in classes:
        hits = sum(t == p == label for t, p in zip(truth, predicted, strict=True))
        either = truth.count(label) + predicted.count(label)
        f1.append(2 * hits / either if either else 0)
    return sum(t == p for t, p in zip(truth, predicted, strict=True)) / len(truth), sum(f1) / len(f1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(10, 14)), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_scores_equal_brute_force_in_the_sample_and_in_every_draw(rows: list[tuple[int, int, int]]) -> None:
    truth, predicted, groups = (np.array(column) for column in zip(*rows, strict=True))
    draws = ScoreDraws(truth, groups, num_classes=4, seed=3)
    names = np.unique(groups)
    counts = np.random.default_rng(3).multinomial(len(names), np.full(len(names), 1 / len(names)), size=1000)
    for i, weights in ((0, np.ones(len(names), int)), (1, counts[0]), (1000, counts[999])):
        drawn = [row for name, times in zip(names, weights, strict=True) for row in rows if row[2] == name] * 1
        drawn = [row for row in drawn for _ in range(int(weights[np.flatnonzero(names == row[2])[0]]))]
        expected = brute_scores([row[0] for row in drawn], [row[1] for row in drawn], set(truth.tolist()))
        assert (draws.accuracy(predicted)[i], draws.macro_f1(predicted)[i]) == pytest.approx(expected)


def test_a_constant_prediction_scores_no_more_in_a_draw_without_the_small_class() -> None:
    truth, groups = np.array([0] * 35 + [1] * 2), np.concatenate([np.arange(35), [40, 40]])
    draws = ScoreDraws(truth, groups, num_classes=2, seed=0)
    assert (draws.macro_f1(truth)[1:] == 0.5).any()  # drawn without the small class, whose F1 is then 0
    found = draws.estimate(draws.macro_f1(np.zeros(37, np.int64)))
    assert found.value == pytest.approx(70 / 72 / 2)
    assert found.high == 0.5


def test_an_interval_contains_the_score_and_is_wider_for_similar_documents() -> None:
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
def test_parts_share_no_group_and_every_document_is_in_a_part_or_counted(
    rows: list[tuple[str | None, str | None]],
) -> None:
    values, groups = pa.array([row[0] for row in rows]), pa.array([row[1] for row in rows])
    try:
        found = label_documents(values, groups, name="topic", split_by="domain")
    except TrainerError as error:
        assert "fewer than two classes" in str(error)
        return
    assert found.split_by == "domain"
    parts = list(found.split.named().values())
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(found.rows)))
    in_part = [{rows[found.rows[i]][1] for i in part} for part in parts]
    assert not in_part[0] & in_part[1]
    assert not in_part[0] & in_part[2]
    assert not in_part[1] & in_part[2]
    assert [found.classes[label] for label in found.labels] == [rows[row][0] for row in found.rows]
    classes = {**found.excluded.few_documents, **found.excluded.by_group()}
    excluded = found.excluded.documents_without_value + sum(size.documents for size in classes.values())
    assert len(found.rows) + excluded == len(rows)
    assert not set(classes) & set(found.classes)
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


def test_rare_classes_and_classes_in_few_groups_are_excluded_and_named() -> None:
    values = ["a"] * 60 + ["b"] * 60 + ["rare"] * 19 + ["one domain"] * 90 + [None] * 7
    groups = [str(i % 12) for i in range(139)] + ["x"] * 90 + ["y"] * 7
    found = label_documents(pa.array(values), pa.array(groups), name="topic", split_by="domain")
    assert found.classes == ["a", "b"]
    assert found.excluded == Excluded(
        documents_without_value=7,
        few_documents={"rare": ClassSize(documents=19, groups=12)},
        few_groups={"one domain": ClassSize(documents=90, groups=1)},  # the largest of all
    )


def test_a_class_that_is_nearly_all_in_one_group_is_excluded() -> None:
    values = ["a"] * 60 + ["b"] * 60 + ["c"] * 60
    groups = [str(i % 12) for i in range(120)] + ["x"] * 58 + ["1", "2"]
    found = label_documents(pa.array(values), pa.array(groups), name="topic", split_by="domain")
    assert found.classes == ["a", "b"]
    assert found.excluded == Excluded(few_documents_in_a_part={"c": ClassSize(documents=60, groups=3)})


def test_classes_that_are_each_in_one_group_are_split_by_document() -> None:
    hosts = [f"{i % 3}.example.org" for i in range(120)]
    found = label_documents(pa.array(hosts), pa.array(["example.org"] * 120), name="url_host", split_by="domain")
    assert found.split_by == "document"
    assert len(found.classes) == 3
    assert Counter(map(len, found.split.named().values())) == Counter({72: 1, 24: 2})


def test_a_domain_too_large_for_the_test_part_is_trained_on() -> None:
    random = np.random.default_rng(0)
    groups = [*["huge"] * 470, *["large"] * 250, *map(str, random.integers(0, 60, 280))]
    values = random.choice(["a", "b", "c"], 1000).tolist()
    found = label_documents(pa.array(values), pa.array(groups), name="topic", split_by="domain")
    train = {groups[found.rows[i]] for i in found.split.train}
    assert {"huge", "large"} <= train
    sizes = {part: len(index) for part, index in found.split.named().items()}
    assert sizes["train"] == 720  # the large domains take more than its share
    assert abs(sizes["validation"] - sizes["test"]) <= 10


def test_large_domains_are_in_all_parts_if_there_are_no_others() -> None:
    groups = [str(number % 4) for number in range(200)]
    values = np.random.default_rng(0).choice(["a", "b"], 200).tolist()
    found = label_documents(pa.array(values), pa.array(groups), name="topic", split_by="domain")
    assert [len(part) for part in found.split.named().values()] == [100, 50, 50]


def test_floating_point_numbers_form_classes_of_similar_size() -> None:
    scores = np.random.default_rng(0).random(500)
    found = label_documents(pa.array(scores), None, name="quality_score", split_by="document")
    assert len(found.classes) == 5
    assert np.bincount(found.labels).min() > 95


def test_the_error_on_too_few_classes_lists_the_largest() -> None:
    with pytest.raises(
        TrainerError, match=r"column 'topic' has fewer than two classes .* largest are a 40, b 5;"
    ) as no:
        label_documents(pa.array(["a"] * 40 + ["b"] * 5), None, name="topic", split_by="document")
    assert str(no.value).endswith("(more documents may help)")
    groups = pa.array([str(i % 9) for i in range(40)] + ["x"] * 40)
    with pytest.raises(
        TrainerError, match=r"fewer than 3 groups: 1, .*\(more documents or --split-by document may help"
    ):
        label_documents(pa.array(["a"] * 40 + ["b"] * 40), groups, name="topic", split_by="domain")


def texts(*lengths: int) -> list[NumPyArray]:
    random = np.random.default_rng(0)
    return [random.integers(0, NUM_TEXT_IDS, length).astype(np.uint16) for length in lengths]


def small_model(**changes: Any) -> Decoder:
    model = Decoder(ModelConfig.model_validate({**TINY_MODEL, **changes}), tokenizer=TOKENIZER)
    model.initialise(seed=0)
    return model.eval()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 80), st.sampled_from([1, 2]))
@settings(deadline=None)
def test_batches_contain_every_row_once_and_respect_their_size(lengths: list[int], max_size: int, cost: int) -> None:
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


def test_states_equal_those_of_each_document_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colophon.trainer.probes.states._TOKENS_AT_ONCE", 40)  # several batches
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
            chosen=0.1,
            epochs=3,
            warnings=(),
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
            excluded=Excluded(),
            majority=score(0.4),
            results=results,
        )
        for name in ("topic", "quality")
    ]
    report = ProbeReport(name="a", step=7, output="out", context="none", documents=30, crop=8, seed=0, columns=columns)
    figure = draw_probes(report)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert len(axes.lines) == 7  # two kinds of probe, each with its two controls, and the most frequent class
        assert len(axes.collections) == (2 if interval else 0)
        np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata(), float), [0.3, 0.4, 0.5])
    assert len(figure.legends) == 1
    assert report.as_dict()["columns"][1]["majority"]["accuracy"]["value"] == 0.4


def column_report(
    classes: dict[str, tuple[int, int, int]], results: list[ProbeResult], *, excluded: Excluded | None = None
) -> ColumnReport:
    return ColumnReport(
        column="topic",
        split_by="domain",
        classes={name: dict(zip(("train", "validation", "test"), of, strict=True)) for name, of in classes.items()},
        groups={"train": 18, "validation": 6, "test": 6},
        excluded=excluded or Excluded(),
        majority=score(0.4),
        results=results,
    )


def test_normal_parts_and_probes_have_no_notes() -> None:
    assert notes(column_report({"a": (60, 20, 20), "b": (36, 10, 10)}, [result_with()])) == []


def result_with(*warnings: Any, layer: int = 0, model: Any = "trained") -> ProbeResult:
    return ProbeResult(
        layer=layer,
        states="mean",
        probe="mlp",
        model=model,
        score=score(0.3),
        accuracy_over_untrained=None,
        chosen=0.1,
        epochs=1,
        warnings=warnings,
    )


def test_small_classes_uneven_parts_and_warnings_are_noted() -> None:
    classes = {"a": (203, 40, 38), **dict.fromkeys("bcde", (50, 9, 10))}
    results = [
        result_with("not_above_majority", "first_epoch", layer=2),
        result_with("not_above_majority", layer=0),
        result_with("not_above_majority", layer=0, model="untrained"),
        result_with("limit", layer=1, model="untrained"),
        result_with("not_above_majority", "first_epoch", model="shuffled"),
    ]
    few, parts, trained, untrained, first, limit = notes(column_report(classes, results))
    assert few == (
        "topic: macro-F1 depends on classes with fewer than 10 documents in a part: b (50 train, 9 validation, "
        "10 test); c (50 train, 9 validation, 10 test); d (50 train, 9 validation, 10 test); and 1 more"
    )
    assert parts == (
        "topic: each class should be divided into 60% train, 20% validation, 20% test; class 'b' deviates most, with "
        "72% train, 13% validation, 14% test: documents of one domain are never divided"
    )
    guessing = "no more accurate than predicting the most frequent class"
    assert trained == f"topic: 2 probes of the trained model: {guessing} (mean, mlp of layers 0, 2)"
    assert untrained == f"topic: 1 probe of the untrained model: {guessing} (mean, mlp of layer 0)"
    assert first == (
        "topic: 1 probe of the trained model: lowest validation loss after the first epoch (mean, mlp of layer 2)"
    )
    assert limit == (
        "topic: 1 probe of the untrained model: not converged at the last iteration or epoch (mean, mlp of layer 1)"
    )


def test_a_class_that_deviates_is_noted_although_the_whole_parts_do_not() -> None:
    (line,) = notes(column_report({"a": (280, 100, 120), "b": (80, 20, 10)}, []))
    assert "class 'b' deviates most, with 73% train, 18% validation, 9% test" in line


def test_excluded_large_classes_are_named_with_the_option_that_includes_them() -> None:
    classes = {"a": (60, 20, 20), "b": (60, 20, 20)}
    one = Excluded(
        few_documents={"z": ClassSize(documents=3, groups=3)}, few_groups={"2020": ClassSize(documents=788, groups=1)}
    )
    assert notes(column_report(classes, [], excluded=one)) == [
        "topic: excluded, because the documents cannot be divided by group: class '2020' (788 documents in 1 group of "
        "domain); --split-by document would include it"
    ]
    sizes = {name: ClassSize(documents=20 + number, groups=2) for number, name in enumerate("cdef")}
    more = Excluded(few_groups=sizes, few_documents_in_a_part={"g": ClassSize(documents=30, groups=4)})
    (line,) = notes(column_report(classes, [], excluded=more))
    assert line.endswith(
        "by group: class 'g' (30 documents in 4 groups of domain); class 'f' (23 documents in 2 groups of domain); "
        "class 'e' (22 documents in 2 groups of domain); and 2 more; --split-by document would include them"
    )


@pytest.mark.parametrize(("value", "is_suspect"), [(0.4 - 1e-3, True), (0.1 + 0.3, True), (0.4 + 1e-3, False)])
def test_a_probe_no_better_than_the_most_frequent_class_has_a_warning(value: float, is_suspect: bool) -> None:
    fit = Fit(classes=np.zeros(1, np.int64), chosen=1.0, epochs=3, warning=None)
    assert _warnings(fit, score(value), score(0.4)) == (("not_above_majority",) if is_suspect else ())


def test_points_with_warnings_are_hollow_in_the_figure() -> None:
    results = [
        replace(result_with(*warnings, layer=layer, model=model), probe=kind)
        for kind in ("linear", "mlp")
        for layer, warnings in enumerate([("limit",), ()])
        for model in ("trained", "untrained", "shuffled")
    ]
    column = column_report({"a": (60, 20, 20), "b": (60, 20, 20)}, results)
    report = ProbeReport(name="a", step=7, output="out", context="none", documents=9, crop=8, seed=0, columns=[column])
    figure = draw_probes(report)
    hollow = [line for line in figure.axes[1].lines if line.get_markerfacecolor() == "white"]
    assert [np.asarray(line.get_xdata()).tolist() for line in hollow] == [[0]] * 4  # not of shuffled labels
    assert min(line.get_zorder() for line in hollow) > max(
        line.get_zorder() for line in figure.axes[1].lines if line not in hollow
    )
    assert "hollow" in figure.get_suptitle()
