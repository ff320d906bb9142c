"""A job as a JSON file, the same for every contestant. Standard library only, so that any interpreter can read it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A fastText model and its labels as in the file (`__label__...`), in the file's order."""

    model: str
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """One vocabulary in the two formats that contestants read; both give the same ids."""

    tiktoken: str
    """A `.tiktoken` file: base64 token, space, rank."""
    pattern_name: str
    """Name of the pattern in a recipe."""
    pattern: str
    """The regular expression that splits text."""
    huggingface: str
    """The same vocabulary as a `tokenizer.json`."""
    num_ids: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """Read Parquet, score with two classifiers, tokenize, write: the same for every contestant."""

    files: tuple[str, ...]
    """Parquet with the columns `id` and `text` (and others), absolute paths."""
    output: str
    """An empty directory."""
    workers: int
    quality: Classifier
    high: str
    """The label of `quality` whose probability is the score."""
    topic: Classifier
    """Its most probable label and that label's probability are the annotation."""
    vocabulary: Vocabulary
    json_lines: str
    """Directory of the same documents as gzipped JSON lines, for contestants that cannot read Parquet."""

    def at(self, output: Path, **changes: Any) -> Job:
        """Return the same job with a different output directory."""
        return replace(self, output=str(output), **changes)

    def save(self, path: Path) -> Path:
        """Write the job; `load` reads it back."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path


def load(path: str | Path) -> Job:
    """Read the job in a file that `Job.save` wrote."""
    raw = json.loads(Path(path).read_text(encoding="utf-8"))
    return Job(
        **{
            **raw,
            "files": tuple(raw["files"]),
            "quality": _classifier(raw["quality"]),
            "topic": _classifier(raw["topic"]),
            "vocabulary": Vocabulary(**raw["vocabulary"]),
        }
    )


def job_of_command_line() -> Job:
    """Read the job in the file that is the script's only argument."""
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: {Path(sys.argv[0]).name} JOB.json")
    return load(sys.argv[1])


def _classifier(raw: dict[str, Any]) -> Classifier:
    return Classifier(model=raw["model"], labels=tuple(raw["labels"]))
