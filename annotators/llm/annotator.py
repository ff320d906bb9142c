"""The annotator `llm_tags`: batches of documents in, columns of answers out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import AnnotatorError
from colophon.annotators.columns import string_column
from colophon.annotators.llm.account import Account, read_counts
from colophon.annotators.llm.answer_log import AnswerLog
from colophon.annotators.llm.asking import Asker, Outcome
from colophon.annotators.llm.questions import FIELD_TYPES, columns_of
from colophon.annotators.llm.service import (
    cost_of_request,
    created_directory,
    key_from_environment,
    question_directory,
)
from colophon.annotators.remote import BudgetError, RemoteAnnotator, RequestsEstimate, ServiceError
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import hashes

if TYPE_CHECKING:
    from colophon.annotators.llm_tags import LlmTagsConfig

_CODE_VERSION = 1


class LlmAnnotator(RemoteAnnotator):
    """Asks a language model about sampled documents.

    Output columns under the name NAME:
      - `NAME_FIELD` for each field of the answer: string, int64, float64 or bool; null without an answer.
      - `NAME_status` (string): `answered`; `repaired` (by the second request); or why there is no answer: `not_json`,
        `mismatch`, `cut`, `declined`, `too_long`, `rejected`, `timeout`, `broken`, `server_error`, `invalid_reply`.
    All are null for a document that is not in the sample, and for a null or blank text.
    """

    def __init__(
        self, name: str, *, config: LlmTagsConfig, num_documents: int | None = None, is_offline: bool = False
    ) -> None:
        """Make the annotator.

        Args:
            name: the annotator's name in the recipe, which begins its columns.
            config: its table.
            num_documents: the calibrated number of documents of the input, for a sample that is a number.
            is_offline: send nothing; all columns are null.
        """
        self.name = name
        self._config = config
        self._num_documents = num_documents
        self._question = config.asked
        self._is_offline = is_offline
        self.columns = tuple(dict.fromkeys(("text", *columns_of(self._question.prompt))))
        self.read_by = dict.fromkeys(self.columns, string_column)
        fields = [(f"{name}_{field}", FIELD_TYPES[each["type"]]) for field, each in self._question.answer.items()]
        self.schema = pa.schema([*fields, (f"{name}_status", pa.string())])

    @cached_property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `Annotator.settings`: what decides the answers, not how they are fetched."""
        return {
            "type": self._config.type_name,
            "code_version": _CODE_VERSION,
            "name": self.name,
            "question": self._question.as_dict(),
            "sample": self._config.sample,
            "seed": self._config.seed,
            "max_chars": self._config.max_chars,
            **({} if self._num_documents is None else {"num_documents": self._num_documents}),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_asker"}

    @property
    def notes(self) -> tuple[str, ...]:
        """A line on what is sent where."""
        config = self._config
        sample = "all documents" if config.sample is None else f"a sample ({config.sample:,}) of the documents"
        return (f"annotators.{self.name}: sends {sample} to {config.model} at {config.endpoint}",)

    @property
    def counts_documents(self) -> bool:
        """Whether the sample is a number, and the documents are not counted yet."""
        return self._share is None

    def with_calibration(self, calibration: Mapping[str, Any]) -> LlmAnnotator:
        """This annotator with the number of documents, which is part of its settings."""
        number = int(calibration["num_documents"])
        return LlmAnnotator(self.name, config=self._config, num_documents=number, is_offline=self._is_offline)

    @property
    def _share(self) -> float | None:
        """The share of documents in the sample; None if it is not known yet."""
        sample = self._config.sample
        if sample is None or isinstance(sample, float):
            return 1.0 if sample is None else sample
        return None if self._num_documents is None else min(sample / max(self._num_documents, 1), 1.0)

    def without_requests(self) -> LlmAnnotator:
        """See `RemoteAnnotator.without_requests`."""
        return LlmAnnotator(self.name, config=self._config, num_documents=self._num_documents, is_offline=True)

    def check_environment(self) -> None:
        """See `RemoteAnnotator.check_environment`."""
        _ = self._key

    def load(self) -> None:
        """Read the stored replies; sends nothing.

        Raises:
            AnnotatorError: the key is missing.
            CacheError: the cache cannot be read, or is not private.
        """
        if not self._is_offline:
            _ = self._asker

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class.

        Raises:
            ServiceError: the endpoint cannot be used, or a budget is spent.
            CacheError: replies cannot be stored.
        """
        texts = string_column(batch, "text")
        rows = np.empty(0, np.int64) if self._is_offline else np.flatnonzero(self._is_asked(texts))
        outcomes: dict[int, Outcome] = dict(zip(rows.tolist(), self._outcomes(batch, rows), strict=True))
        found = [outcomes.get(row) for row in range(batch.num_rows)]
        columns = [
            pa.array([None if each is None or each.values is None else each.values[field] for each in found], kind.type)
            for field, kind in zip(self._question.answer, self.schema, strict=False)
        ]
        status = pa.array([None if each is None else each.status for each in found], pa.string())
        return pa.record_batch([*columns, status], schema=self.schema)

    def estimate(self, num_documents: int, *, mean_characters: float, num_workers: int) -> RequestsEstimate:
        """See `RemoteAnnotator.estimate`; from the requests that this question has had, else from typical ones."""
        config, sample = self._config, self._config.sample
        share = self._share if self._share is not None else min((sample or 1) / max(num_documents, 1), 1.0)
        number = round(num_documents * share)
        counts = read_counts(question_directory(self._question, config.cache))
        each = cost_of_request(counts, self._question, mean_characters=min(mean_characters, config.max_chars))
        seconds = number * each.seconds / (config.concurrency * num_workers)
        if config.requests_per_minute is not None:
            seconds = max(seconds, 60.0 * number / config.requests_per_minute)
        tokens = (round(number * each.prompt_tokens), round(number * each.output_tokens))
        prices = config.prices
        price = None if prices is None else (tokens[0] * prices[0] + tokens[1] * prices[1]) / 1e6
        return RequestsEstimate(
            annotator=self.name,
            endpoint=config.endpoint,
            requests=number,
            prompt_tokens=tokens[0],
            output_tokens=tokens[1],
            seconds=round(seconds, 1),
            price=price,
            source=each.source,
            warning=config.limits.shortage(counts, requests=number, tokens=sum(tokens)),
        )

    def _is_asked(self, texts: pa.Array) -> NumPyArray:
        """bool [rows]: whether the document is in the sample, and its text has more than white space.

        The sample is a hash of the text and the seed below a threshold: it does not depend on ids, order or partitions.

        Raises:
            AnnotatorError: the sample is a number, and the documents have not been counted.
        """
        share = self._share
        if share is None:
            raise AnnotatorError(f"annotators.{self.name}: sample: the documents of the input have not been counted")
        has_text = pc.fill_null(pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0), False)
        is_asked: NumPyArray = has_text.to_numpy(zero_copy_only=False)
        if share < 1:
            key = f"sample {self._config.seed}".encode()
            is_asked = is_asked & (hashes(texts.to_pylist(), key=key) < np.uint64(share * 2**64))
        return is_asked

    def _outcomes(self, batch: pa.RecordBatch, rows: NumPyArray) -> list[Outcome]:
        if not len(rows):
            return []
        places = pa.array(rows)
        columns = {name: string_column(batch, name).take(places).to_pylist() for name in self.columns}
        columns["text"] = [text[: self._config.max_chars] for text in columns["text"]]
        documents = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        messages = [self._question.message({name: value or "" for name, value in each.items()}) for each in documents]
        try:
            return self._asker.outcomes(messages)
        except BudgetError as error:
            raise BudgetError(f"annotators.{self.name}: {error}") from None
        except ServiceError as error:
            where = f"annotators.{self.name}: {self._config.endpoint}"
            raise ServiceError(f"{where}: {error}. Replies are kept: the same command resumes") from None

    @cached_property
    def _asker(self) -> Asker:
        from colophon.annotators.llm.client import ChatClient

        config, directory = self._config, created_directory(self._question, self._config.cache)
        log = AnswerLog(directory)
        log.refresh()
        client = ChatClient(
            config.endpoint, key=self._key, timeout_seconds=config.timeout_seconds, connections=config.concurrency
        )
        return Asker(
            self._question,
            client=client,
            log=log,
            account=Account(directory, config.limits, patience_seconds=2 * config.timeout_seconds),
            concurrency=config.concurrency,
            max_attempts=config.max_attempts,
        )

    @property
    def _key(self) -> str | None:
        return key_from_environment(self._config.key_variable, where=f"annotators.{self.name}.key_variable")
