"""Hidden Markov models with a latent class, and the exact losses of their texts.

A document has a class, uniform over C, and a chain of S hidden states whose transitions all classes share: a grammar.
A state emits one of W words, with probabilities that depend on the class: a vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Process:
    """A uniform mixture over classes of hidden Markov models."""

    starts: Floats
    """[S]: the stationary distribution."""
    transitions: Floats
    """[S, S]: from the first axis to the second."""
    emissions: Floats
    """[C, S, W]."""

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.emissions)

    @property
    def num_words(self) -> int:
        """W."""
        return self.emissions.shape[2]


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Documents of equal length."""

    words: Integers
    """[N, T]: numbers of the words."""
    classes: Integers
    """[N]: the class of each document."""
    control: Integers
    """[N]: the classes in a random order over the documents, so they reveal nothing about the text."""


def draw_process(*, num_classes: int, num_states: int, num_words: int, seed: int) -> Process:
    """A process drawn by `seed`.

    A state has a few likely successors (Dirichlet 0.3), and num_words / num_states words of its own, whose shares
    differ by class (Dirichlet 1). It takes a tenth of its words from its neighbour, so no word reveals its state.
    """
    random = np.random.default_rng(seed)
    transitions = random.dirichlet(np.full(num_states, 0.3), num_states)
    transitions = 0.98 * transitions + 0.02 / num_states  # no state is ever impossible
    starts = np.linalg.matrix_power(transitions, 1 << 12)[0]
    shares = random.dirichlet(np.ones(num_words // num_states), (num_classes, num_states))
    own = np.zeros((num_classes, num_states, num_words))
    own[:, np.arange(num_words) * num_states // num_words, np.arange(num_words)] = shares.reshape(num_classes, -1)
    return Process(
        starts=starts / starts.sum(), transitions=transitions, emissions=0.9 * own + 0.1 * np.roll(own, 1, axis=1)
    )


def sample(process: Process, *, num_documents: int, length: int, seed: int) -> Documents:
    """Draw `num_documents` documents of `length` words."""
    random = np.random.default_rng(seed)
    classes = random.integers(process.num_classes, size=num_documents)
    states = _draw(np.tile(process.starts, (num_documents, 1)), random)
    words = np.empty((num_documents, length), np.int64)
    for t in range(length):
        words[:, t] = _draw(process.emissions[classes, states], random)
        states = _draw(process.transitions[states], random)
    return Documents(words=words, classes=classes, control=random.permutation(classes))


def _draw(probabilities: Floats, random: np.random.Generator) -> Integers:
    """One draw from each row of `probabilities` [N, K]."""
    bounds = probabilities.cumsum(axis=1)
    return (random.random((len(bounds), 1)) * bounds[:, -1:] > bounds).sum(axis=1)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The exact losses of documents, in nats. A model can have no lower expected loss with the same context."""

    by_class: Floats
    """[N, C, T]: -log p(word t | words before, class), for each class."""
    classes: Integers
    """[N]: the documents' own classes."""

    @cached_property
    def with_class(self) -> Floats:
        """[N, T]: given the document's own class."""
        return self.given(self.classes)

    def given(self, classes: Integers) -> Floats:
        """[N, T]: given one class for each document [N], which need not be its own."""
        return self.by_class[np.arange(len(classes)), classes]

    @cached_property
    def without_class(self) -> Floats:
        """[N, T]: without the class; p(words) is the mean over classes of p(words | class)."""
        evidence = np.logaddexp.reduce(-self.by_class.cumsum(axis=2), axis=1)  # log of C x p(first t words)
        return -np.diff(evidence, axis=1, prepend=np.log(self.by_class.shape[1]))

    @cached_property
    def posterior(self) -> Floats:
        """[N, C]: p(class | all words), by Bayes."""
        evidence = -self.by_class.sum(axis=2)
        return np.exp(evidence - np.logaddexp.reduce(evidence, axis=1, keepdims=True))

    @property
    def class_after_text(self) -> Floats:
        """[N]: -log p(class | all words) of the document's own class; its mean is H(class | text)."""
        return -np.log(self.posterior[np.arange(len(self.classes)), self.classes])


def answer(process: Process, documents: Documents) -> Answer:
    """The exact losses of `documents`, by the forward algorithm for each class.

    Cost: N x C x S² multiplications for each word.
    """
    words = documents.words
    beliefs = np.broadcast_to(process.starts, (len(words), process.num_classes, len(process.starts)))
    # p(state | words before, class)
    losses = np.empty((len(words), process.num_classes, words.shape[1]))
    for t in range(words.shape[1]):
        joint = beliefs * process.emissions[:, :, words[:, t]].transpose(2, 0, 1)  # [N, C, S]
        likelihood = joint.sum(axis=2)
        losses[:, :, t] = -np.log(likelihood)
        beliefs = joint / likelihood[:, :, None] @ process.transitions
    return Answer(by_class=losses, classes=documents.classes)
