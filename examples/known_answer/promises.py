"""The promises of a study, each with the number that decides it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from results import Estimate, Record, Results

_BELOW = -0.01
"""Above the floor at least: a model is below it by chance alone, or because it reads what it is to predict."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """A claim about a mean over seeds."""

    claim: str
    found: Estimate
    low: float = float("-inf")
    high: float = float("inf")

    @property
    def holds(self) -> bool:
        """Whether the mean is within the limits."""
        return self.low <= self.found.mean <= self.high

    def __str__(self) -> str:
        """Such as `holds: plain: at most 0.04 above its floor: 0.0267 ± 0.0032`."""
        return f"{'holds' if self.holds else 'DOES NOT HOLD'}: {self.claim}: {self.found}"


def promises(records: Sequence[Record]) -> list[Promise]:
    """The promises about the layouts that have results; numbers are nats per word, those of the class per document."""
    results = Results(records)
    arms = set(results.arms)
    found: list[Promise] = []
    for needed, stated in _STATED.items():
        if arms.issuperset(needed):
            found.extend(stated(results))
    return found


def markdown(records: Sequence[Record]) -> str:
    """The promises as a table of a page."""
    rows = [
        f"| {each.claim.replace('|', chr(92) + '|')} | {each.found} | {_yes(each.holds)} |"
        for each in promises(records)
    ]
    return "\n".join(["| promise, in nats | found | holds |", "| --- | ---: | --- |", *rows])


def _yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


def _near_floor(results: Results, arm: str, *, floor: str, limit: float = 0.04) -> Promise:
    """The text is at most `limit` above its floor, and not below it."""
    claim = f"{arm}: the text is at most {limit} above {floor} floor, nor more than {-_BELOW} below it"
    return Promise(claim=claim, found=results.excess(arm), low=_BELOW, high=limit)


def _plain(results: Results) -> Iterator[Promise]:
    yield _near_floor(results, "plain", floor="its")


def _prepend(results: Results) -> Iterator[Promise]:
    yield _near_floor(results, "prepend", floor="its", limit=0.02)
    exact = results.exact_cost_of_wrong
    claim = f"prepend: the class of another document costs {exact:.3f}, as a perfect model, within a half of it"
    yield Promise(claim=claim, found=results.cost_of_wrong("prepend"), low=0.5 * exact, high=1.5 * exact)


def _gain(results: Results) -> Iterator[Promise]:
    for part, (name, exact) in enumerate(zip(results.part_names, results.exact_gain, strict=True)):
        claim = f"plain - prepend: in words {name} the gain is {exact:.3f}, I(class; word | words before), within 0.04"
        yield Promise(claim=claim, found=results.gain(part), low=exact - 0.04, high=exact + 0.04)


def _prepend_control(results: Results) -> Iterator[Promise]:
    arm = "prepend-control"
    yield _near_floor(results, arm, floor="plain's")
    claim = f"{arm}: metadata of another document changes nothing, within 0.005"
    yield Promise(claim=claim, found=results.cost_of_wrong(arm), low=-0.005, high=0.005)


def _append(results: Results) -> Iterator[Promise]:
    # Metadata after the text is no context of the text, so its floor is that of plain.
    yield from (_near_floor(results, arm, floor="plain's") for arm in ("append", "append-control"))
    exact, prior = results.exact["class_after_text"], results.exact["class"]
    above = results.of("append", lambda record: record["class_after_text"] - exact)
    claim = f"append: the class costs H(class | text), {exact:.3f}, at most 0.05 more, nor more than 0.01 less"
    yield Promise(claim=claim, found=above, low=_BELOW, high=0.05)
    above = results.of("append-control", lambda record: record["class_after_text"] - prior)
    claim = f"append-control: the metadata costs H(class), {prior:.3f}, within 0.02"
    yield Promise(claim=claim, found=above, low=-0.02, high=0.02)
    difference = results.of("append", results.loss, minus="append-control")
    claim = "append - append-control: learning the class does not harm the text by more than 0.02"
    yield Promise(claim=claim, found=difference, high=0.02)


_STATED = {
    ("plain",): _plain,
    ("prepend",): _prepend,
    ("plain", "prepend"): _gain,
    ("prepend-control",): _prepend_control,
    ("append", "append-control"): _append,
}
"""By the layouts that they need."""
