from __future__ import annotations

import numpy as np
import pytest
import torch

from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.probes.features import conditioned
from colophon.trainer.probes.fits import Fit, Split, threads_for
from colophon.trainer.probes.linear import STRENGTHS, TOLERANCE, fit_linear, loss_and_gradient, minimise
from colophon.trainer.probes.mlp import LEARNING_RATES, MIN_PATIENCE, fit_mlp

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
