"""The `robots` annotator: whether the robots.txt of a document's site allows crawlers of AI companies to fetch it.

The files are known today, the documents were fetched earlier: an opt-out is applied in retrospect, as for Apertus
(arXiv 2509.14233, section on data). Cost: about 30 µs a document for 15 agents, and one parse of a robots.txt for each
site in each worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError
from colophon.annotators.columns import string_column
from colophon.annotators.lists.list_files import check_table, digests, files_of
from colophon.annotators.url import host_of, map_distinct, registered_domain, split_urls
from colophon.shards.common.errors import missing_library
from colophon.shards.common.paths import absolute_path

if TYPE_CHECKING:  # protego is an extra
    from colophon.annotators.lists.robots_files import RobotsFiles

_CODE_VERSION = 1

AGENTS = (
    "AI2Bot",
    "Applebot-Extended",
    "Bytespider",
    "CCBot",
    "CCBot/2.0",
    "CCBot/1.0",
    "ClaudeBot",
    "cohere-training-data-crawler",
    "Diffbot",
    "FacebookBot",
    "Meta-ExternalAgent",
    "Google-Extended",
    "GPTBot",
    "PanguBot",
    "*",
)
"""The agents of Apertus (arXiv 2509.14233); `*` is any agent that a robots.txt does not name."""


class RobotsConfig(AnnotatorConfig):
    """Applies robots.txt files that you have to the documents' URLs. It needs the extra `robots`.

    Example:

        [annotators.robots]
        files = "robots.parquet"
    """

    type_name: ClassVar[str] = "robots"
    path_fields = ("files",)
    reads = ("url",)
    writes = ("NAME_allowed", "NAME_refused", "NAME_status")

    files: str
    """A local Parquet or JSON-lines file with a row for each site, a folder of such files, or a folder with a file
    `HOST.txt` for each site. Of two files of one site the last counts."""
    host_column: str = "domain"
    """The column of tables with the site: a host name or a URL."""
    text_column: str = "robots_txt"
    """The column of tables with the content of robots.txt; null if the site has none."""
    agents: tuple[str, ...] = Field(default=AGENTS, min_length=1, max_length=1000)
    """The user agents; a document is allowed if all of them may fetch it."""
    registered_domain: bool = False
    """Where a host has no file, use that of the domain under which it is registered: `example.org` for
    `blog.example.org`. A robots.txt itself speaks for its own host alone."""

    @field_validator("agents")
    @classmethod
    def _are_names(cls, agents: tuple[str, ...]) -> tuple[str, ...]:
        for agent in agents:
            if not agent.strip() or "," in agent:
                raise ValueError(f"{agent!r} is no user agent: a name without commas, or '*'")
        return agents

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, those of a folder one by one; the path itself if nothing is there."""
        try:
            return tuple(map(str, files_of(absolute_path(self.files))))
        except AnnotatorError:
            return (self.files,)

    def build(self, name: str) -> RobotsAnnotator:
        """The annotator under `name`.

        Raises:
            AnnotatorError: the files are missing, one of Parquet lacks a column, or protego is not installed.
        """
        try:
            import protego  # noqa: F401
        except ImportError:
            raise AnnotatorError(missing_library(f"annotators.{name}", "protego", extra="robots")) from None
        try:
            for file in files_of(self.files):
                check_table(file, [self.host_column, self.text_column])
        except AnnotatorError as error:
            raise AnnotatorError(f"annotators.{name}.files: {error}") from None
        return RobotsAnnotator(name, config=self)


class RobotsAnnotator(Annotator):
    """Applies the robots.txt of a document's site to its URL.

    Output columns under the name NAME:
      - `NAME_allowed` (bool): whether all agents may fetch the URL. True where no file can be used.
      - `NAME_refused` (string): the agents that may not, joined by `, `; null if all may.
      - `NAME_status` (string): `found`; `missing` (no file of the site, or a null text); `unreadable` (no UTF-8, or
        rules of more than `robots_files.MOST_RULES` agents times paths).
    All are null for a URL without a host. A file counts for its host, and for the host with or without `www.` if that
    has none of its own.
    """

    columns = ("url",)

    def __init__(self, name: str, *, config: RobotsConfig) -> None:
        self.name = name
        self._config = config
        self.schema = pa.schema(
            [(f"{name}_allowed", pa.bool_()), (f"{name}_refused", pa.string()), (f"{name}_status", pa.string())]
        )

    @cached_property
    def settings(self) -> dict[str, Any]:  # type: ignore[override]
        """See `Annotator.settings`. The first use reads the files for their sha256, 0.5 to 2 s a GB."""
        files = files_of(self._config.files)
        return {
            "type": RobotsConfig.type_name,
            "code_version": _CODE_VERSION,
            "name": self.name,
            "protego": version("protego"),
            "config": self._config.model_dump(mode="json", exclude={"files"}),
            "files": [[file.name, sha256] for file, sha256 in zip(files, digests(files), strict=True)],
        }

    def __getstate__(self) -> dict[str, Any]:
        _ = self.settings
        return {key: value for key, value in self.__dict__.items() if key != "_files"}

    @property
    def model_files(self) -> Mapping[str, str]:
        """The files and their sha256."""
        files = files_of(self._config.files)
        return {str(file): sha256 for file, (_, sha256) in zip(files, self.settings["files"], strict=True)}

    def load(self) -> None:
        """Map the files' index and texts, after writing them to the cache if this machine does not have them.

        Raises:
            AnnotatorError: a file cannot be read, or has changed since its sha256 was computed.
        """
        _ = self._files

    check_files = load

    @cached_property
    def _files(self) -> RobotsFiles:
        from colophon.annotators.lists.robots_files import RobotsFiles

        config = self._config
        files = files_of(config.files)
        if digests(files) != [sha for _, sha in self.settings["files"]]:
            raise AnnotatorError(f"annotators.{self.name}.files: {config.files} has changed since the run began")
        try:
            return RobotsFiles(files, host_column=config.host_column, text_column=config.text_column)
        except AnnotatorError as error:
            raise type(error)(f"annotators.{self.name}.files: {error}") from None

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class."""
        urls = string_column(batch, "url").cast(pa.string())
        hosts = map_distinct(split_urls(urls)[1], host_of)
        rows = list(self._verdicts(urls, hosts))
        refused = pa.array([", ".join(agents or ()) or None for agents, _ in rows], pa.string())
        allowed = pa.array([None if agents is None else not agents for agents, _ in rows], pa.bool_())
        return pa.record_batch([allowed, refused, pa.array([s for _, s in rows], pa.string())], schema=self.schema)

    def _verdicts(self, urls: pa.Array, hosts: pa.Array) -> Iterator[tuple[list[str] | None, str | None]]:
        """The agents that are refused, and the status, of each document; None and None without a host."""
        encoded = hosts.dictionary_encode()
        sites = [self._site(host) for host in encoded.dictionary.to_pylist()]
        places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        known = pc.if_else(pa.array(places >= 0), urls, pa.scalar(None, pa.string())).to_pylist()
        for place, url in zip(places.tolist(), known, strict=True):
            yield (None, None) if place < 0 else self._files.refused(sites[place], url, self._config.agents)

    def _site(self, host: str) -> int | None:
        """The row of the file that counts for a host; None if there is none."""
        twin = host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"
        names = [host, twin]
        if self._config.registered_domain and (domain := registered_domain(host)):
            names += [domain, f"www.{domain}"]
        return next((row for name in names if (row := self._files.find(name)) is not None), None)
