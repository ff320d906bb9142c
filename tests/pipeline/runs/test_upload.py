"""`submit` refuses, before anything is sent, files that a job would not find and an output that would be lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.project import Called, colophon, write_tokenizer

OUTPUT = "output.path=/shared/out"
NOWHERE = "http://127.0.0.1:1"


def submit(*settings: str) -> Called:
    options = [word for setting in settings for word in ("--set", setting)]
    return colophon("submit", "recipe.toml", "--address", NOWHERE, "--no-install", *options)


def test_a_relative_output_is_refused(project: Path) -> None:
    called = submit()
    assert called.code == 2
    assert called.line == (
        "submit: recipe.toml: output.path out is relative: it would be lost with the job's directory. "
        "Set an absolute path that all nodes share, or an object store"
    )


def test_files_of_the_working_directory_are_uploaded(project: Path) -> None:
    for output in (OUTPUT, "output.path=s3://bucket/out", "output.path=file:///shared/out", "output.path=~/out"):
        assert submit(output).line.startswith(f"submit: no Ray job server at {NOWHERE}: "), "the next thing it needs"


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("input.paths=../data/*.parquet", "input.paths: ../data/*.parquet is outside the working directory {}"),
        ("input.paths=none/*.jsonl", "input.paths: none/*.jsonl is not in the working directory {}"),
        ("tokenizer.path=models/small.tiktoken", "tokenizer.path: {1} is not uploaded (never uploaded: models)"),
        ("tokenizer.path=ignored/small.tiktoken", "tokenizer.path: {1} is not uploaded (.gitignore: ignored/)"),
        ("tokenizer.path=deep/x/small.tiktoken", "tokenizer.path: {1} is not uploaded (deep/.rayignore: *.tiktoken)"),
        (
            'annotators.q={type="fasttext",model="q.bin",score={argmax=true}}',
            "annotators.q: q.bin is not in the working directory {}",
        ),
    ],
)
def test_a_relative_file_that_is_not_uploaded_is_refused(project: Path, setting: str, reason: str) -> None:
    Path(".gitignore").write_text("# comment\nignored/\n!kept/\n")
    for directory in ("models", "ignored", "deep/x"):
        Path(directory).mkdir(parents=True)
        write_tokenizer(Path(directory, "small.tiktoken"))
    Path("deep/.rayignore").write_text("*.tiktoken\n")
    Path("../data").mkdir(exist_ok=True)
    Path("../data/x.parquet").touch()
    called = submit(OUTPUT, setting)
    assert called.code == 2
    expected = reason.format(project, setting.partition("=")[2])
    assert called.line == (
        f"submit: recipe.toml: {expected}, and would be missing on the cluster. "
        "Set an absolute path that all nodes share, or put it into the working directory"
    )
