"""The commit record of one pass over one partition: all files that a worker has published together.

It is the point at which the files become visible. A driver moves the records into segments, see `storage.ledger`; until
then they are under `records/pending/`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from colophon.shards.records import Record

RECORDS = "records"
PENDING = f"{RECORDS}/pending"


class PassRecord(BaseModel):
    """The content of `records/pending/<partition>.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: str
    records: list[Record] = []
    withdrawn: list[str] = []
    """Outputs whose files of this partition are being replaced: no older record of them is valid."""

    @field_validator("records")
    @classmethod
    def _are_of_the_partition(cls, records: list[Record], info: ValidationInfo) -> list[Record]:
        if any(record.partition != info.data.get("partition") for record in records):
            raise ValueError("a record is of a different partition")
        return records

    def replaced_by(self, records: list[Record], *, withdrawn: list[str]) -> PassRecord:
        """This record with other content for the outputs that the arguments name."""
        named = {*withdrawn, *(record.output for record in records)}
        return PassRecord(
            partition=self.partition,
            records=[*(record for record in self.records if record.output not in named), *records],
            withdrawn=[*(output for output in self.withdrawn if output not in named), *withdrawn],
        )


def pending_path(partition: str, *, run: str = "") -> str:
    """The path of a partition's commit record under the root, until it is in a segment.

    On an object store each run has its own directory, named by its token: see `storage.head`.
    """
    return f"{PENDING}/{run}/{partition}.json" if run else f"{PENDING}/{partition}.json"


def older_path(output: str, partition: str) -> str:
    """The path under the root at which older versions kept the commit record of one file."""
    return f"{RECORDS}/{output}/{partition}.json"


def settings_path(output: str) -> str:
    """The path of the settings that an output's files were written with."""
    return f"{RECORDS}/{output}/.settings.json"
