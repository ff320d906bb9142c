"""The results of a study: means over seeds, with their intervals, beside the exact losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from hidden_markov import Floats

Record: TypeAlias = dict[str, Any]
Value: TypeAlias = Callable[[Record], float]
_T_95 = (np.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 97.5 % quantile of Student's t by degrees of freedom, from 0."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds."""

    values: Sequence[float]
    """One for each seed; at most 10."""

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.values))

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval over seeds, by Student's t; 0 for one seed, which has none."""
        number = len(self.values)
        return float(_T_95[number - 1] * np.std(self.values, ddof=1) / np.sqrt(number)) if number > 1 else 0.0

    def __str__(self) -> str:
        """Such as `0.0123 ± 0.0045`; for one seed without an interval."""
        return f"{self.mean:.4f}" + (f" ± {self.half_width:.4f}" if len(self.values) > 1 else "")


class Results:
    """The records of a study: the exact losses, then one for each model."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.exact, *self.models = records
        self.words = np.array(self.exact["words"])
        """The numbers of words whose loss is summed: 1, 2, 4, ..., all."""

    @property
    def arms(self) -> list[str]:
        """The layouts that have results."""
        return list(dict.fromkeys(record["arm"] for record in self.models))

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len({record["seed"] for record in self.models})

    def of(self, arm: str, value: Value, *, minus: str | None = None) -> Estimate:
        """A value of the models of a layout; with `minus` less that of another layout's model of the same seed."""
        found = self._by_seed(arm, value)
        if minus is not None:
            other = self._by_seed(minus, value)
            found = {seed: found[seed] - other[seed] for seed in found if seed in other}
        return Estimate(values=list(found.values()))

    def _by_seed(self, arm: str, value: Value) -> dict[int, float]:
        return {record["seed"]: value(record) for record in self.models if record["arm"] == arm}

    def loss(self, record: Record, key: str = "loss") -> float:
        """Nats per word of a record."""
        return float(record[key][-1] / self.words[-1])

    def floor(self, arm: str) -> float:
        """The lowest expected loss of a layout in nats per word: with the class only where it is before the text."""
        return self.loss(self.exact, "with_class" if arm == "prepend" else "without_class")

    def excess(self, arm: str) -> Estimate:
        """Nats per word above the floor."""
        return self.of(arm, lambda record: self.loss(record) - self.floor(arm))

    def cost_of_wrong(self, arm: str) -> Estimate:
        """Nats per word that metadata of another document costs."""
        return self.of(arm, lambda record: self.loss(record, "loss_wrong") - self.loss(record))

    @property
    def exact_cost_of_wrong(self) -> float:
        """Nats per word that the class of another document costs a perfect model."""
        return self.loss(self.exact, "wrong_class") - self.loss(self.exact, "with_class")

    @property
    def part_names(self) -> list[str]:
        """The parts of a document between the numbers of words: `1`, `2`, `3-4`, `5-8`, ..."""
        firsts = [1, *(self.words[:-1] + 1)]
        return [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(firsts, self.words, strict=True)]

    def parts(self, losses: Sequence[float]) -> Floats:
        """[n]: nats per word in each part, from the sums over the first words."""
        found: Floats = np.diff(losses, prepend=0.0) / np.diff(self.words, prepend=0)
        return found

    @property
    def exact_gain(self) -> Floats:
        """[n]: I(class; word | words before), in nats per word, for each part of a document."""
        return self.parts(self.exact["without_class"]) - self.parts(self.exact["with_class"])

    def gain(self, part: int) -> Estimate:
        """Nats per word by which prepend is below plain in a part of a document."""
        return self.of("plain", lambda record: float(self.parts(record["loss"])[part]), minus="prepend")
