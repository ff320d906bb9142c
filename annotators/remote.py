"""Annotators that send requests to a service: what they may cost, and the errors that end a run for them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

from colophon.annotators.base import Annotator
from colophon.shards.common.errors import ColophonError


class ServiceError(ColophonError):
    """A service that refuses requests or gives no answers: the run ends, and nothing is quarantined for it."""


class BudgetError(ServiceError):
    """A budget of requests or tokens that is spent: the run ends, and a larger budget resumes it."""


@dataclass(frozen=True, kw_only=True)
class RequestsEstimate:
    """The requests that a run may send for one annotator."""

    annotator: str
    endpoint: str
    requests: int
    """At most: answers that are stored already are not subtracted."""
    prompt_tokens: int
    output_tokens: int
    seconds: float
    price: float | None
    """In the currency of the recipe's prices; None without prices."""
    source: str
    """Where tokens and times of a request come from."""
    warning: str | None = None
    """The shortage of the recipe's budget."""

    def as_dict(self) -> dict[str, Any]:
        """The estimate as a JSON value."""
        return asdict(self)


class RemoteAnnotator(Annotator):
    """An annotator that sends requests to a service, which may cost money and whose answers may differ.

    Commands that only look, such as `--dry-run` and `verify --deep`, send none: they use `without_requests`, or leave
    its output as it is.
    """

    @abstractmethod
    def without_requests(self) -> Annotator:
        """The same columns, all null, without a request; with a calibration too."""

    @abstractmethod
    def check_environment(self) -> None:
        """Check what the process that sends requests needs from its environment, such as a key; sends nothing.

        Raises:
            AnnotatorError: it is missing.
        """

    @abstractmethod
    def estimate(self, num_documents: int, *, mean_characters: float, num_workers: int) -> RequestsEstimate:
        """The requests for so many documents of this mean length; sends none.

        Args:
            num_documents: the documents of partitions that are not up to date.
            mean_characters: of their texts.
            num_workers: the worker processes that send requests.
        """
