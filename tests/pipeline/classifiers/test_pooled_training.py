"""A `pooled` classifier from labelled files to columns of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.annotators.base import INPUT_IDS
from colophon.annotators.heads.tensor_file import read_info
from colophon.annotators.pooled.model_file import PooledInfo
from colophon.pipeline.classifiers.token_units import token_units
from colophon.pipeline.stages.timing import Clock
from colophon.pipeline.stages.token_ids import TokenSource
from colophon.shards.outputs import Output
from colophon.shards.tokenizer.tokenizer import TokenizerConfig, load_tokenizer
from tests.annotators.conftest import labelled
from tests.pipeline.project import Called, colophon, manifest, resolved_recipe, run, write_project

TOKENIZER = ("--tokenizer", "path=small.tiktoken", "--tokenizer", "pattern=gpt2")
QUICK = ("--setting", "min_steps=60", "--setting", "epochs=1", "--setting", "bucket_bits=10")
RECIPE = """
[annotators.known]
type = "pooled"
model = "known.safetensors"
[annotators.known.heads.quality]
score = { probability_of = "high" }
bins = { quantiles = 2 }
"""


def train(*options: str, output: str = "known.safetensors") -> Called:
    return colophon(
        *("train-classifier", "--kind", "pooled", "--train", "labels.parquet", "--output", output),
        *(*TOKENIZER, *QUICK, *options),
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a trained model of two heads and a recipe that has it."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_project(root)
        texts, labels = labelled(["high", "low"], num_texts=200)
        half = [label if number % 4 < 2 else None for number, label in enumerate(labels)]
        pq.write_table(pa.table({"text": texts, "quality": labels, "half": half}), root / "labels.parquet")
        called = train("--label", "quality", "--label", "half", "--test", "labels.parquet", "--json")
        assert called.code == 0, called.err
        (root / "called.json").write_text(called.out)
        with Path("recipe.toml").open("a") as recipe:
            recipe.write(RECIPE)
    return root


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project


def test_the_model_its_card_and_its_scores(here: Path) -> None:
    called = json.loads((here / "called.json").read_text())
    assert called["test"]["quality"]["accuracy"] > 0.95
    assert called["test"]["half"]["num_texts"] == 100
    card = json.loads((here / "known.safetensors.json").read_text())
    assert [head["name"] for head in card["heads"]] == ["quality", "half"]
    assert card["training"]["texts"] == {"quality": 200, "half": 100}
    assert card["training"]["texts_by_label"]["quality"] == {"high": 100, "low": 100}
    assert card["test"] == called["test"]


def test_equal_settings_give_equal_files(here: Path) -> None:
    for name in ("a", "b"):
        assert train("--label", "quality", output=f"{name}.safetensors").code == 0
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


def test_the_ids_come_from_the_pass_from_its_files_or_from_the_texts(here: Path) -> None:
    """Annotations are the same with tokens in the same pass, with tokens of an earlier run, and without any."""
    records = {}
    for name, commands in {"both": ["run"], "files": ["tokenize", "annotate"], "alone": ["annotate"]}.items():
        for command in commands:
            called = colophon(command, "recipe.toml", "--set", f"output.path={name}", "--executor", "inline")
            assert called.code == 0, called.err
        outputs = manifest(name).outputs
        records[name] = [(r.partition, r.sha256, r.fingerprint) for r in outputs["annotations/known"].records]
        assert ("tokens" in outputs) == (name != "alone")
    assert records["both"] == records["files"] == records["alone"]
    columns = pq.read_table(next(Path("both/annotations/known").glob("*.parquet")))
    assert columns.column_names == ["id", "known_quality", "known_quality_score"]
    settings = manifest("both").outputs["annotations/known"].settings
    assert settings["tokenizer"]["sha256"] == read_info("known.safetensors", PooledInfo).tokenizer.sha256
    deep = colophon("verify", "recipe.toml", "--deep", "--set", "output.path=both", "--executor", "inline")
    assert deep.code == 0, deep.out + deep.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('[tokenizer]\npath = "small.tiktoken"', '[tokenizer]\npath = "bytes.tiktoken"'), "a different vocabulary"),
        (("[annotators.known.heads.quality]", "[annotators.known.heads.other]"), "has no head 'other'"),
    ],
)
def test_a_recipe_that_does_not_fit_the_model_is_refused(here: Path, change: tuple[str, str], message: str) -> None:
    Path("bytes.tiktoken").write_text("".join(Path("small.tiktoken").read_text().splitlines(keepends=True)[:256]))
    text = Path("recipe.toml").read_text()
    assert change[0] in text
    Path("other.toml").write_text(text.replace(*change))
    called = run("--dry-run", "--no-probe", recipe="other.toml")
    assert called.code == 2
    assert message in called.line


def test_without_a_tokenizer_ids_cannot_be_read(here: Path) -> None:
    text = Path("recipe.toml").read_text()
    begin, end = text.index("[tokenizer]"), text.index("[annotators.known]")
    Path("no-tokenizer.toml").write_text(text[:begin] + text[end:])
    called = colophon("annotate", "no-tokenizer.toml", "--dry-run", "--no-probe")
    assert called.code == 2
    assert "annotators.known reads the ids of texts: a [tokenizer] is required" in called.line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "quality", "--label", "quality"], "--label: 'quality' is given twice"),
        (["--label", "gone"], "gone"),
        (["--label", "quality", "--setting", "dim=63"], "--setting"),
        (["--label", "quality", "--setting", "epoch=3"], "epoch"),
        (["--label", "quality", "--normalize", "lower=true"], "are for --kind fasttext"),
        (["--label", "quality", "--tokenizer", "name=gpt3"], "set exactly one of name and path"),
    ],
)
def test_wrong_options_are_one_line(here: Path, options: list[str], message: str) -> None:
    called = train(*options, output="never.safetensors")
    assert called.code == 2
    assert message in called.line
    assert not Path("never.safetensors").exists()


def test_pooled_needs_a_tokenizer_and_two_labels(here: Path) -> None:
    command = ["train-classifier", "--kind", "pooled", "--train", "labels.parquet", "--output", "never.safetensors"]
    assert "--tokenizer is required" in colophon(*command).line
    pq.write_table(pa.table({"text": ["a", "b"], "label": ["x", "x"]}), "one.parquet")
    command[4] = "one.parquet"
    assert "label: a classifier needs at least two labels; labels: 'x'" in colophon(*command, *TOKENIZER).line
    assert "for --kind pooled" in colophon("train-classifier", *command[3:], "--tokenizer", "name=gpt2").line


def test_units_fold_case_and_white_space(here: Path) -> None:
    tokenizer = load_tokenizer(TokenizerConfig(path="small.tiktoken", pattern="gpt2"))
    units, num_units = token_units(tokenizer, fold_case=True)

    def unit(text: str) -> int:
        (token,) = tokenizer.encode_batch(pa.array([text])).values.to_pylist()
        return int(units[token])

    assert unit("a") == unit("A")
    assert unit(" ") == unit("\n") == -1
    assert (units[tokenizer.num_base_ids :] == -1).all()
    plain, num_plain = token_units(tokenizer, fold_case=False)
    assert num_units < num_plain == len(set(plain.tolist()) - {-1})


def test_the_name_of_ids_is_taken(here: Path) -> None:
    table = '[annotators.mine]\ntype = "columns"\ncolumns = { input_ids = { column = "dump" } }\n'
    Path("taken.toml").write_text(table + Path("recipe.toml").read_text())
    called = run("--dry-run", "--no-probe", recipe="taken.toml")
    assert called.code == 2
    assert "annotators.mine writes a column 'input_ids', the name of the ids of texts" in called.line


def test_a_model_reads_the_ids_of_the_rewritten_text(here: Path) -> None:
    """`[tokenizer] rewritten_by` is part of the annotation's settings, and of what an annotator alone encodes."""
    text = Path("recipe.toml").read_text().replace("[tokenizer]\n", '[tokenizer]\nrewritten_by = ["personal"]\n')
    Path("rewritten.toml").write_text(text + '[annotators.personal]\ntype = "pii"\n')
    resolved, plain = (resolved_recipe(recipe=name) for name in ("rewritten.toml", "recipe.toml"))
    output = Output.annotations("known")
    assert [*resolved.settings.of(output)["rewritten_by"]] == ["1 personal"]
    assert resolved.settings.fingerprints[output] != plain.settings.fingerprints[output]
    batch = pa.record_batch({"text": ["Write to a@uni.ch."]})
    ids = [
        TokenSource(each.store, each.encoding).encoder(Clock())(batch, 0).column(INPUT_IDS)[0].as_py()
        for each in (resolved, plain)
    ]
    tokenizer = plain.tokenizer
    assert [tokenizer.decode(each) for each in ids] == ["Write to <email-pii>.", "Write to a@uni.ch."]
