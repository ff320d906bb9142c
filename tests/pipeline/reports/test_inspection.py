"""`colophon inspect` and `--dry-run`: one document, one sequence, and the plan of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.reports.inspection import sequence_at, show_sequence
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import ROLE_NAMES
from tests.pipeline.project import (
    LAYOUTS,
    ROWS_OF_FILES,
    Called,
    colophon,
    document,
    manifest,
    resolved_recipe,
    run,
    snapshot,
    write_documents,
)


def inspect(*arguments: str) -> Called:
    return colophon("inspect", "recipe.toml", *arguments)


# documents


@pytest.mark.parametrize("number", [0, 15, 16, 100, sum(ROWS_OF_FILES) - 1])
def test_a_document_is_shown_with_its_annotations_and_text(finished: Path, number: int) -> None:
    called = inspect("--document", str(number))
    assert (called.code, called.err) == (0, "")
    row = document(number)
    assert f"document {number}: row " in called.out
    year = "null" if row["dump"] == "elsewhere" else row["dump"][8:12]
    assert f"crawl_year (crawl) {year} crawl_slice" in " ".join(called.out.split())
    assert "".join((row["url"] or "null").split()) in "".join(called.out.split())
    first_line = (row["text"] or "").split("\x00")[0][:40]
    assert first_line in called.out


def test_a_text_that_is_not_the_one_of_the_run_is_named(finished: Path) -> None:
    document_of_run = json.loads(inspect("--json").out)["document"]
    assert not document_of_run["input_changed"]
    path = next(Path("data").glob("part-0*"))
    table = pq.read_table(path)
    texts = pa.array([f"edited {text}" for text in table.column("text").to_pylist()])
    pq.write_table(table.set_column(table.schema.get_field_index("text"), "text", texts), path)
    edited = json.loads(inspect("--json").out)["document"]
    assert edited == {**document_of_run, "input_changed": True, "text": edited["text"]}
    assert "it was changed since the run" in " ".join(inspect().out.split())


def test_without_a_number_the_first_document_is_shown(finished: Path) -> None:
    assert inspect().out == inspect("--document", "0").out


def test_a_document_that_could_be_markup_is_shown_as_it_is(project: Path) -> None:
    row = {
        **document(0),
        "id": "[/red]",
        "url": "https://h.example/[bold]/:smile:\x1b[31m",
        "text": "[/x] \x1b[2J :+1:",
    }
    pq.write_table(pa.Table.from_pylist([row]), "a.parquet")
    settings = ("--set", "input.paths=a.parquet")
    assert run(*settings).code == 0
    called = inspect(*settings, "--document", "0", "--layout", "plain")
    assert (called.code, called.err) == (0, "")
    assert re.search(r"^id +\[/red\]$", called.out, re.M)
    assert r"https://h.example/[bold]/:smile:\x1b[31m" in called.out
    assert re.search(r"^text +\[/x\] \\x1b\[2J :\+1:$", called.out, re.M)
    assert "\x1b" not in called.out


def test_a_document_whose_input_is_missing_is_shown_without_text(finished: Path) -> None:
    Path("data/part-0.parquet").unlink()
    called = inspect("--document", "0")
    assert (called.code, called.err) == (0, "")
    assert "(its input is missing)" in called.out


# sequences


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sequence_is_shown_token_by_token(finished: Path, layout: str) -> None:
    called = inspect("--layout", layout, "--sequence", "3")
    assert (called.code, called.err) == (0, "")
    dataset = PackedDataset.open(Path("out"), layout)
    file, row = dataset.locate(3)
    _, roles, documents = file.runs(row)
    assert called.out.startswith(f"{layout}, sequence 3: row {row} of {file.path.name}; loss weights: ")
    assert all(ROLE_NAMES[role] in called.out.splitlines()[1] for role in set(roles.tolist()))
    assert f"[document {documents[0]}]" in called.out
    tokenizer = resolved_recipe().tokenizer
    shown = "".join(tokenizer.token_strings(file.input_ids[row][:10]))
    assert "".join(shown.split()) in "".join(called.out.split())


def test_the_number_of_tokens_can_be_limited(finished: Path) -> None:
    whole, part = inspect("--layout", "plain").out, inspect("--layout", "plain", "--tokens", "5").out
    assert len(part) < len(whole)
    dataset = PackedDataset.open(Path("out"), "plain")
    tokens = resolved_recipe().tokenizer.token_strings(dataset.files[0].input_ids[0][:6])
    assert "".join(tokens[:5]) in part
    assert "".join(tokens) not in part
    num_ids = dataset.files[0].input_ids[0].size
    assert f"[{num_ids - 5} more tokens]" in part
    assert "[1 more token]" in inspect("--layout", "plain", "--tokens", str(num_ids - 1)).out
    assert "more token" not in whole + inspect("--layout", "plain", "--tokens", str(num_ids)).out


def test_masked_roles_are_dimmed_on_a_terminal(finished: Path) -> None:
    import io

    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, force_terminal=True, color_system="standard", width=120)
    show_sequence(sequence_at(resolved_recipe(), layout="prepend-url", row=0), console=console)
    shown = file.getvalue()
    assert "\x1b[2;36m" in shown  # metadata: dim cyan
    assert "\x1b[36m" in shown  # the legend's cyan
    file.seek(0)
    show_sequence(sequence_at(resolved_recipe(), layout="append-quality", row=0), console=console)
    assert "\x1b[36m" in file.getvalue()


def test_a_character_that_spans_tokens_is_whole_and_the_rest_is_counted(project: Path) -> None:
    row = {**document(0), "text": "東京 🙂 und größer, " * 3}
    pq.write_table(pa.Table.from_pylist([row]), "a.parquet")
    settings = ("--set", "input.paths=a.parquet")
    assert run(*settings).code == 0
    whole = json.loads(inspect(*settings, "--layout", "plain", "--json").out)["sequence"]
    texts = "".join(run["text"] for run in whole["runs"] if run["role"] == "text")
    assert texts.startswith("東京 🙂 und größer, 東京")
    for tokens in range(1, 30):
        part = json.loads(inspect(*settings, "--layout", "plain", "--tokens", str(tokens), "--json").out)["sequence"]
        shown = sum(len(run["input_ids"]) for run in part["runs"])
        assert tokens <= shown <= tokens + 3
        assert shown + part["tokens_left"] == part["tokens"] == 65
        assert texts.startswith("".join(run["text"] for run in part["runs"] if run["role"] == "text"))


def test_a_long_text_is_cut_and_the_rest_is_counted(project: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{**document(0), "text": "ü" * 1345}]), "a.parquet")
    settings = ("--set", "input.paths=a.parquet")
    assert run(*settings).code == 0
    assert f"{'ü' * 300}… [1,045 more characters]\n" in inspect(*settings).out
    assert json.loads(inspect(*settings, "--json").out)["document"]["text"] == "ü" * 1345


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--document", "200"), "inspect: there is no document 200; the run has 200, numbered from 0"),
        (("--document=-1",), "inspect: there is no document -1; the run has 200, numbered from 0"),
        (("--layout", "plain", "--sequence", "100000"), "inspect: plain has no sequence 100000; it has "),
        (("--layout", "plain", "--sequence=-1"), "inspect: plain has no sequence -1; it has "),
        (
            ("--layout", "prepend"),
            "out has no layout 'prepend'; available: append-quality, meta-tokens, plain, prepend-url. Did you ",
        ),
    ],
)
def test_a_missing_document_layout_or_sequence_is_one_line(
    finished: Path, arguments: tuple[str, ...], message: str
) -> None:
    called = inspect(*arguments)
    assert called.code == 2
    assert called.line.startswith(message)


def test_inspecting_before_a_run_is_one_line(project: Path) -> None:
    called = inspect()
    assert called.code == 2
    assert called.line == "out has no manifest.json: run `colophon run` first"


# dry runs


def dry(*arguments: str) -> Called:
    return run("--dry-run", "--no-probe", *arguments)


def test_a_dry_run_shows_the_recipe_the_partitions_and_the_work(project: Path) -> None:
    before = snapshot()
    called = dry("--set", "pack.sequence_length=99", "--no-probe")
    assert (called.code, called.err) == (0, "")
    assert snapshot() == before
    rest, _, shown = called.out.partition("recipe:\n")
    recipe = json.loads(shown)
    assert recipe["pack"]["sequence_length"] == 99
    assert recipe["layouts"]["prepend-url"]["template"] == "{url}"
    assert recipe["annotators"]["edu_score"]["column"] == "score"
    partitions = len(resolved_recipe().inputs.partitions)
    assert f"{partitions} partitions" in rest
    assert f"annotate: {3 * partitions} files to write for {partitions} partitions, 0 up to date" in rest
    assert f"tokenize: {partitions} files to write for {partitions} partitions, 0 up to date" in rest
    assert f"pack: {4 * partitions} files to write for {partitions} partitions, 0 up to date" in rest


def test_a_dry_run_after_a_run_shows_what_is_up_to_date_and_what_changed(finished: Path) -> None:
    before = snapshot()
    partitions = len(manifest().partitions)
    assert f"pack: 0 files to write for 0 partitions, {partitions} up to date" in dry().out
    called = dry("--set", "layouts.prepend-url.dropout=0.5")
    assert called.code == 0
    assert f"pack: {partitions} files to write for {partitions} partitions, 0 up to date" in called.out
    assert "packed/prepend-url: written with other settings: layout.dropout: 0.1 -> 0.5 (needs --rebuild)" in called.out
    assert snapshot() == before


def test_a_dry_run_names_what_would_be_quarantined(project: Path) -> None:
    Path("data/part-1.parquet").write_bytes(b"")
    called = dry()
    assert called.code == 0
    assert "would be quarantined: data/part-1.parquet: " in called.out
    assert not Path("out").exists()


def test_a_dry_run_of_many_partitions_shows_the_first(project: Path) -> None:
    write_documents(Path("many.parquet"), range(60), row_group_size=1)
    called = dry("--set", "input.paths=many.parquet", "--set", "input.partition_bytes=1")
    assert "60 partitions" in called.out
    assert "... and 40 more" in called.out


@pytest.mark.parametrize("output", ["tokens", "annotations/url"])
@pytest.mark.parametrize("content", [None, b"", b"PAR1" * 50, b"ARROW1\0\0" * 50])
def test_a_damaged_file_is_one_line(finished: Path, output: str, content: bytes | None) -> None:
    path = Path("out", manifest().outputs[output].records[0].path)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    called = colophon("inspect", "recipe.toml", "--document", "0")
    assert called.code == 2
    assert called.line.startswith(f"{path}: ")
