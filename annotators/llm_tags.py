"""The `llm_tags` annotator: what a language model behind an OpenAI-compatible endpoint answers about each document.

Built-in questions are open-vocabulary tags of topic and format, as `domain_fine` of "Beyond URLs" (arXiv 2511.21613),
and an educational score with its reason. Cost: one request for each sampled document, two where a reply had to be
repaired; a few µs for each document that is not in the sample.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from colophon.annotators.base import AnnotatorConfig
from colophon.annotators.llm.limits import Limits
from colophon.annotators.llm.questions import QUESTIONS, Question, columns_of, field_problem
from colophon.shards.common.paths import absolute_path
from colophon.shards.common.url_secrets import secret_in
from colophon.shards.common.web_addresses import is_web_address

if TYPE_CHECKING:
    from colophon.annotators.llm.annotator import LlmAnnotator

_ENDPOINT = re.compile(r"https?://[A-Za-z0-9\[][^\s?#\\]*")
_OWN_KEYS = ("messages", "model", "n", "response_format", "stream", "temperature")


class LlmTagsConfig(AnnotatorConfig):
    """Asks a language model about each document, or about a sample of them. The texts are sent to `endpoint`.

    Example:

        [annotators.tags]
        type = "llm_tags"
        endpoint = "http://127.0.0.1:8000/v1"
        model = "meta-llama/Llama-3.1-8B-Instruct"
        sample = 20_000

        [annotators.recipe]
        type = "llm_tags"
        endpoint = "https://api.example.org/v1"
        model = "small"
        key_variable = "EXAMPLE_API_KEY"
        prompt = "Is this page a recipe? Answer with JSON: {\\"is_recipe\\": true or false}.\\n\\n{text}"
        answer = { is_recipe = { type = "boolean" } }
        sample = 0.01
        max_requests = 5_000
    """

    type_name: ClassVar[str] = "llm_tags"
    reads = ("text", "the other columns that `prompt` names")
    writes = ("NAME_FIELD for each field of the answer", "NAME_status")

    endpoint: str
    """Address of an OpenAI-compatible server, such as vLLM's; requests go to `ENDPOINT/chat/completions`."""
    model: str = Field(min_length=1, max_length=500)
    """The model's name, as the server knows it."""
    question: Literal["tags", "education"] = "tags"
    """`tags`: topic and format in one to three words each. `education`: a score of 0 to 5 and its reason. `prompt` and
    `answer` replace it."""
    prompt: str | None = None
    """The question, with `{text}` and other text columns in braces. Default: that of `question`."""
    answer: dict[str, dict[str, Any]] | None = None
    """The fields of the answer, a JSON object: for each a JSON Schema of type `string`, `integer`, `number` or
    `boolean`. Default: those of `question`."""
    sample: int | float | None = None
    """The documents to ask about: a number above 1 of them, on average, or a share such as `0.01`. Default: all."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    """Chooses the sample. With equal seeds a larger sample contains a smaller one."""
    max_chars: int = Field(default=6000, ge=1)
    """The characters of a text that are sent, from its beginning."""
    max_output_tokens: int = Field(default=200, ge=1)
    """The longest reply."""
    temperature: float = Field(default=0.0, ge=0.0)
    """0: the most probable reply."""
    response_format: Literal["json_schema", "json_object", "text"] = "json_schema"
    """How the server is asked for JSON; `text`: by the prompt alone. Every reply is checked in the same way."""
    request: dict[str, Any] = Field(default={})
    """Further keys of each request, such as `{ chat_template_kwargs = { enable_thinking = false } }`."""
    key_variable: str | None = None
    """The environment variable that has the key, in every process that annotates. Default: no key is sent."""
    concurrency: int = Field(default=16, ge=1, le=1024)
    """The most requests at once, of each worker process."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """The most requests a minute, of all processes that share `cache`."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """The longest time for one reply."""
    max_attempts: int = Field(default=6, ge=1)
    """Attempts at a request while the server is busy or fails, with pauses of 1, 2, 4, ... s or what it asks for."""
    max_requests: int | None = Field(default=None, ge=1)
    """A budget: no more requests are sent for this question, over all runs that share `cache`. The run then ends."""
    max_tokens: int | None = Field(default=None, ge=1)
    """A budget of tokens, those of prompts and replies."""
    prices: tuple[float, float] | None = None
    """The price of a million tokens of prompts and of replies, for the estimate of `--dry-run`."""
    cache: str | None = None
    """Local directory for replies and counts of requests, which all machines of a cluster should share. Default: this
    machine's cache."""

    @field_validator("endpoint")
    @classmethod
    def _is_web_address(cls, endpoint: str) -> str:
        if (problem := secret_in(endpoint)) is not None:
            raise ValueError(f"{problem}; name the environment variable of a key in key_variable")
        if not _ENDPOINT.fullmatch(endpoint) or not is_web_address(endpoint):
            raise ValueError("must be a web address without query, such as http://127.0.0.1:8000/v1")
        return endpoint.rstrip("/").removesuffix("/chat/completions")

    @field_validator("key_variable")
    @classmethod
    def _is_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not (name.isascii() and name.isidentifier()):
            message = "must be the name of an environment variable, such as EXAMPLE_API_KEY"
            raise PydanticCustomError("secret", message)  # it may be the key itself
        return name

    @field_validator("answer")
    @classmethod
    def _has_fields(cls, answer: dict[str, dict[str, Any]] | None) -> dict[str, dict[str, Any]] | None:
        if answer is not None and not answer:
            raise ValueError("must have at least one field, such as { topic = { type = 'string' } }")
        for name, schema in (answer or {}).items():
            if problem := field_problem(name, schema):
                raise ValueError(f"{name}: {problem}")
        return answer

    @field_validator("sample")
    @classmethod
    def _is_number_or_share(cls, sample: int | float | None) -> int | float | None:
        if sample is not None and not (0 < sample <= 1 if isinstance(sample, float) else sample > 1):
            raise ValueError("must be a number of documents above 1, or a share such as 0.01")
        return sample

    @field_validator("request")
    @classmethod
    def _has_no_own_keys(cls, request: dict[str, Any]) -> dict[str, Any]:
        for key in _OWN_KEYS:
            if key in request:
                raise ValueError(f"{key!r} is set by the other keys of this table")
        return request

    @field_validator("cache")
    @classmethod
    def _is_local(cls, cache: str | None) -> str | None:
        if cache is not None and re.match(r"[A-Za-z0-9+.-]*:", cache):
            raise ValueError("must be a local directory")
        return cache

    @model_validator(mode="after")
    def _fits_together(self) -> LlmTagsConfig:
        if self.answer is not None and self.prompt is None:
            raise ValueError("answer: needs a prompt that asks for these fields")
        if self.prompt is not None and "text" not in columns_of(self.prompt):
            raise ValueError("prompt: must contain {text}")
        return self

    def with_absolute_paths(self) -> AnnotatorConfig:
        """See `AnnotatorConfig.with_absolute_paths`."""
        return self if self.cache is None else self.model_copy(update={"cache": absolute_path(self.cache)})

    @property
    def asked(self) -> Question:
        """The question with its settings."""
        prompt, answer = QUESTIONS[self.question]
        return Question(
            model=self.model,
            prompt=self.prompt or prompt,
            answer=self.answer or answer,
            response_format=self.response_format,
            temperature=self.temperature,
            max_output_tokens=self.max_output_tokens,
            more=self.request,
        )

    @property
    def limits(self) -> Limits:
        """The budget and the rate."""
        return Limits(
            max_requests=self.max_requests, max_tokens=self.max_tokens, requests_per_minute=self.requests_per_minute
        )

    def build(self, name: str) -> LlmAnnotator:
        """The annotator under `name`; sends nothing."""
        from colophon.annotators.llm.annotator import LlmAnnotator

        return LlmAnnotator(name, config=self)
