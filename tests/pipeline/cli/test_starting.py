"""`colophon init` and `colophon recipes`: a recipe for the user's files that runs as it is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.inputs.partition_size import automatic_bytes
from colophon.pipeline.recipe.loading import load_recipe, shipped_recipes
from colophon.pipeline.runs.resolve import resolve
from tests.pipeline.project import colophon, run, write_documents, write_json_lines

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MIB = 1 << 20


@pytest.fixture(autouse=True)
def in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(path: str = "recipe.toml") -> dict[str, Any]:
    return tomllib.loads(Path(path).read_text(encoding="utf-8"))


def test_a_recipe_for_fineweb_files_has_their_annotators(tmp_path: Path) -> None:
    write_documents(Path("data/a.parquet"), range(1, 40))
    called = colophon("init", "data")
    assert (called.code, called.err) == (0, "")
    assert "recipe.toml: written. Next: colophon run recipe.toml --dry-run" in called.out
    recipe = written()
    assert recipe["input"] == {"paths": ["data"], "partition_bytes": 4 * MIB}
    assert recipe["output"] == {"path": "out/recipe"}
    assert set(recipe["annotators"]) == {"url", "crawl", "edu_score"}
    assert set(recipe["layouts"]) == {"plain", "prepend-url", "append-quality", "meta-tokens"}
    assert run().code == 0


def test_names_of_other_data_sets_are_mapped(tmp_path: Path) -> None:
    rows = [
        {
            "doc_id": n,
            "raw_content": "A text. " * 9,
            "meta": {"link": f"https://a.example/{n}", "tags": []},
            "score": 99,
        }
        for n in range(5)
    ]
    write_json_lines(Path("x y.jsonl"), rows)
    called = colophon("init", "x y.jsonl", "--to", "own.toml", "--output", "o", "--json")
    assert (called.code, called.err) == (0, "")
    result = json.loads(called.out)
    becomes = {column["name"]: column["becomes"] for column in result["columns"]}
    expected = {"doc_id": "id", "raw_content": "text", "meta.link": "url", "meta.tags": None, "score": None}
    assert becomes == expected
    assert result["bytes"] == Path("x y.jsonl").stat().st_size
    recipe = written("own.toml")
    assert recipe["input"]["columns"] == {"text": "raw_content", "url": "meta.link", "id": "doc_id"}
    assert list(recipe["annotators"]) == ["url"]  # 99 is no score of FineWeb-Edu's
    assert resolve(load_recipe("own.toml"), where="own.toml").inputs.partitions


def test_files_of_several_formats_are_named() -> None:
    for path in ("data/a.jsonl", "data/c.jsonl"):
        write_json_lines(Path(path), [{"text": "A text."}])
    Path("data/b.csv").write_text("text\nA text.\n")
    called = colophon("init", "data")
    assert (called.code, called.err) == (0, "")
    assert "files of 2 formats (1 csv, 2 jsonl): only data/a.jsonl was read. If others have different" in called.out
    result = json.loads(colophon("init", "data", "--overwrite", "--json").out)
    assert (result["formats"], result["columns_of"]) == ({"csv": 1, "jsonl": 2}, "data/a.jsonl")
    assert "formats" not in colophon("init", "data/a.jsonl", "--overwrite").out


def test_values_that_python_does_not_have_are_shown_as_text() -> None:
    late, bad = pa.array([316516204800], pa.timestamp("s")), pa.array([b"caf\xe9"])
    bad_text = pa.Array.from_buffers(pa.string(), 1, bad.buffers())
    columns = {"text": ["A text."], "late": late, "tags": pa.ListArray.from_arrays([0, 1], bad_text)}
    pq.write_table(pa.table({**columns, "zone": pa.array([0], pa.timestamp("s", "Mars/Olympus"))}), "a.parquet")
    called = colophon("init", "a.parquet", "--json")
    assert (called.code, called.err) == (0, "")
    assert [(column["name"], column["example"]) for column in json.loads(called.out)["columns"]] == [
        ("text", "A text."),
        ("late", "12000-01-01T00:00:00"),
        ("tags", "['caf\ufffd']"),
        ("zone", "1970-01-01T00:00:00Z"),
    ]


def test_what_the_search_does_not_take_is_named() -> None:
    write_json_lines(Path("data/a.jsonl"), [{"text": "A text."}])
    Path("data/b.jsonl").symlink_to("gone")
    Path("data/c.ipc").touch()
    called = colophon("init", "data")
    assert (called.code, called.err) == (0, "")
    assert "cannot be read: data/b.jsonl: a link whose target is missing: gone (input)" in called.out
    assert "left aside: unknown suffix .ipc: 1 (data/c.ipc)" in called.out
    result = json.loads(colophon("init", "data", "--overwrite", "--json").out)
    assert ([e["source"] for e in result["quarantine"]], result["left_aside"][0]["count"]) == (["data/b.jsonl"], 1)


def test_the_longest_strings_are_the_text_where_no_name_fits() -> None:
    Path("a.tsv").write_text("kurz\tlang\nx\t" + "wort " * 30 + "\n")
    assert colophon("init", "a.tsv").code == 0
    assert written()["input"]["columns"] == {"text": "lang"}
    assert colophon("init", "a.tsv", "--overwrite", "--text", "kurz").code == 0
    assert written()["input"]["columns"] == {"text": "kurz"}


def test_names_that_could_be_toml_stay_names() -> None:
    name = 'te"xt\n[output]\x7f\u202e'
    pq.write_table(pa.table({name: ["A longer text, of some words."], "b\nc = 1": ["x"]}), "a.parquet")
    called = colophon("init", "a.parquet")
    assert (called.code, called.err) == (0, "")
    assert written()["input"]["columns"] == {"text": name}
    assert not {"\x7f", "\u202e"} & set(Path("recipe.toml").read_text())
    assert "\u202e" not in called.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing",), "input.paths: missing: no such file, or no data file in it"),
        (
            ("a.jsonl", "--text", "contnt"),
            "--text contnt: no such column; available: content. Did you mean 'content'?",
        ),
        (("numbers.jsonl",), "numbers.jsonl: no column of strings that could be the text; columns: n (int)"),
        (("empty.jsonl",), "empty.jsonl: it has no rows"),
        (("https://user:pa55@e.org/x.parquet",), "init: PATHS must not hold a secret: it contains a user name"),
        (("https://e.org/x.parquet?sig=pa55",), "init: PATHS must not hold a secret: it has the query key 'sig'"),
        (("reference://::x",), "init: paths.0: "),
        (("nope://x",), "init: paths.0: "),
        (("broken.parquet",), "broken.parquet: "),
        (("a.jsonl", "--to", "there.toml"), "there.toml exists; --overwrite replaces it, --to writes "),
        (("a.jsonl", "--output", "."), "recipe.toml: "),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(arguments: tuple[str, ...], message: str) -> None:
    write_json_lines(Path("a.jsonl"), [{"content": "A text."}])
    write_json_lines(Path("numbers.jsonl"), [{"n": 1}])
    Path("empty.jsonl").touch()
    Path("broken.parquet").write_bytes(b"PAR1 and nothing")
    Path("there.toml").write_text("mine")
    called = colophon("init", *arguments)
    assert called.code == 2, called.out
    assert called.line.startswith(message)
    assert "pa55" not in called.line
    assert not Path("recipe.toml").exists()
    assert Path("there.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("total", "workers", "expected"),
    [
        (0, 1, 4),
        (100 * MIB, 2, 8),
        (10_000 * MIB, 2, 256),
        (10_000 * MIB, 96, 16),
        (1000 * MIB, 1, 128),
        (44_000_000 * MIB, 1000, 4096),
    ],
)
def test_each_worker_gets_about_four_partitions_of_a_bounded_size(total: int, workers: int, expected: int) -> None:
    assert automatic_bytes(total, workers=workers) == expected * MIB


def test_a_bundled_recipe_is_shown_as_it_is() -> None:
    path = shipped_recipes()["web"]
    assert colophon("recipes", "--show", "web").out == path.read_text(encoding="utf-8")
    assert json.loads(colophon("recipes", "--show", "web", "--json").out)["tokenizer"]["pattern"] == "gpt2"
    listed = json.loads(colophon("recipes", "--json").out)
    assert [one["name"] for one in listed] == list(shipped_recipes())
    called = colophon("recipes", "--show", "wob")
    assert called.code == 2
    bundled = "annotate-everything, demo, fineweb-edu, web"
    assert called.line == f"--show wob: no such recipe; bundled recipes: {bundled}. Did you mean 'web'?"
