"""The commands `evaluate` and `generate` over a small project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from colophon.shards.tokenizer.tokenizer import TokenizerConfig, load_tokenizer
from colophon.trainer.inference.contexts import max_text_tokens_by_layout
from tests.pipeline.project import colophon, run
from tests.trainer.evaluation.small_project import evaluated_model


def test_evaluate_prints_tables_and_writes_results(here: Path) -> None:
    options = ["--name", "plain", "--name", "prepend-url", "--documents", "120", "--crop", "50"]
    note = "documents of out, most of which were trained on; without --output, the held-out ones are measured"
    assert note not in colophon("evaluate", "recipe.toml", *options).out  # the default is the documents of validation
    options += ["--output", "out"]
    called = colophon(
        "evaluate", "recipe.toml", *options, "--by", "crawl_year", "--by", "url_host", "--by", "url_suffix"
    )
    assert (called.code, called.err) == (0, "")
    assert "their first 50 tokens" in called.out
    for name in ("shuffled", "bits/byte by crawl_year", "bits/byte by url_host", "host0.example.org", "—", " ±0."):
        assert name in called.out
    assert note in called.out
    for line in ("prepend-url true", "By column: ± is half the width", "of fewer than 5 documents are not shown."):
        assert line in called.out
    asked = "beside=plain-by=crawl_year,url_host,url_suffix-crop=50-documents=120-output=out"
    path = Path(f"out/training/prepend-url/evaluation-{asked}.json")
    assert called.out.splitlines()[-1] == str(path)
    written = path.read_bytes()
    found = json.loads(written)
    assert list(found["conditions"]) == ["true", "empty", "none", "shuffled"]
    printed = colophon("evaluate", "recipe.toml", *options, "--json")
    assert json.loads(printed.out)[1] == {**found, "by": {}}
    assert path.read_bytes() == written  # the call with --json writes a different file


def test_the_result_of_evaluate_with_defaults_is_named_evaluation(here: Path) -> None:
    called = colophon("evaluate", "recipe.toml", "--name", "append-quality")
    assert (called.code, called.err) == (0, "")
    found = json.loads((here / "out/training/append-quality/evaluation.json").read_text())
    rooms = max_text_tokens_by_layout(here / "out")
    assert found["documents"]["crop"] == min(rooms.values()) < rooms["plain"]
    assert "hold no more beside the longest context" in called.out


def fit_bins_elsewhere(output: Path, edges: list[float]) -> None:
    """Change the manifest as if the run under `output` had fitted different edges."""
    path = output / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["outputs"]["annotations/crawl"]["settings"]["annotator"]["edges"] = edges
    path.write_text(json.dumps(manifest))


def train_on_bins(training: Path, edges: list[float]) -> None:
    """Change the checkpoint as if the training had seen these edges."""
    (path,) = training.glob("checkpoints/*/state.json")
    state = json.loads(path.read_text())
    state["data"]["layouts"][0]["annotators"]["settings"]["crawl"]["edges"] = edges
    path.write_text(json.dumps(state))


def test_metadata_with_different_bins_is_refused_and_groups_are_noted(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "same", tmp_path / "val")
    fit_bins_elsewhere(tmp_path / "val", [0.5])
    recipe = (here / "recipe.toml").read_text().replace('"{url}"', '"{crawl_year}"')
    recipe = recipe.replace('validation_output = "same"\n', "")
    assert '"{crawl_year}"' in recipe
    (tmp_path / "recipe.toml").write_text(recipe)
    place = ["--set", f"output.path={tmp_path / 'out'}", "--set", "input.paths=['data/part-0.parquet']"]
    assert run(*place, recipe=str(tmp_path / "recipe.toml")).code == 0
    settings = ["--set", "train.prepend-url.validation_rows=2", "--set", "train.prepend-url.steps=1", *place]
    trained = colophon("train", str(tmp_path / "recipe.toml"), "--name", "prepend-url", *settings)
    assert trained.code == 0, trained.err
    train_on_bins(tmp_path / "out/training/prepend-url", [0.25])
    asked = ["--name", "prepend-url", "--documents", "20", "--output", str(tmp_path / "val"), *place]
    refused = colophon("evaluate", str(tmp_path / "recipe.toml"), *asked)
    assert refused.code == 2
    assert "annotator 'crawl' of " in refused.line
    assert "edges [0.25] in training, [0.5] here" in refused.line
    assert refused.line.endswith("; or --conditions empty,none")
    assert "edges [0.25] in training" in colophon("attention", str(tmp_path / "recipe.toml"), *asked).line
    asked += ["--conditions", "none,empty", "--by", "crawl_year"]
    done = colophon("evaluate", str(tmp_path / "recipe.toml"), *asked)
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if "its groups are not those of the training" in line]
    (found,) = json.loads(colophon("evaluate", str(tmp_path / "recipe.toml"), *asked, "--json").out)
    assert found["notes"] == [line]


def test_evaluate_on_another_runs_documents(here: Path) -> None:
    assert run("--set", "output.path=elsewhere", "--set", "input.paths=['data/part-2.parquet']").code == 0
    options = ["--name", "plain", "--output", "elsewhere", "--crop", "9", "--conditions", "none", "--json"]
    called = colophon("evaluate", "recipe.toml", *options)
    assert called.code == 0
    (found,) = json.loads(called.out)
    assert called.err == f"plain: {found['documents']['documents']} documents, none\n"
    assert found["documents"]["output"] == "elsewhere"
    assert found["documents"]["documents"] <= 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "plain/checkpoints"], "out/training/plain/checkpoints: no such training run; available: append-"),
        (["--name", "plane"], "no such training run; available: append-quality, meta-tokens, plain, prepend-url"),
        (["--name", "plain", "--step", "9"], "no checkpoint of step 9; available: 2"),
        (
            ["--name", "plain", "--conditions", "tru"],
            "unknown condition 'tru'; available: none, empty, true, shuffled,",
        ),
        (
            ["--name", "plain", "--by", "topic"],
            "no annotator has a column 'topic'; available: crawl_slice, ",
        ),
        (["--name", "plain", "--output", "nowhere"], "nowhere is not the output of a finished run"),
        (["--name", "plain", "--crop", "400"], "crop 400: rows of 'plain' have 300 tokens, at most 300"),
        (
            ["--name", "plain", "--set", "tokenizer.pattern=cl100k_base"],
            "recipe.toml: [tokenizer] is not the one that plain was trained with: sha256: ",
        ),
    ],
)
def test_errors_of_evaluate_are_one_line(here: Path, options: list[str], message: str) -> None:
    called = colophon("evaluate", "recipe.toml", *options)
    assert called.code == 2
    assert message in called.line


def cut_tokens(here: Path, length: int) -> int:
    layout = evaluated_model(here / "out", "prepend-url").layout.layout
    tokenizer = load_tokenizer(TokenizerConfig(path=str(here / "small.tiktoken"), pattern="gpt2"))
    return len(tokenizer.backend.encode(f"https://example.org/{'p' * length}")) - layout.max_metadata_tokens


def test_the_error_before_any_training_names_the_command(here: Path) -> None:
    called = colophon("evaluate", "recipe.toml", "--set", "output.path=same", "--name", "plain")
    assert (
        called.line
        == "same/training/plain: no such training run; no model has been trained yet: run `colophon train` first"
    )


def test_generate_continues_the_prompt(here: Path) -> None:
    options = ["--name", "prepend-url", "--prompt", "the größe", "--max-tokens", "20", "--temperature", "2"]
    metadata = ["--meta", "url=https://a.org/ü"]
    called = colophon("generate", "recipe.toml", *options, *metadata)
    assert (called.code, called.err) == (0, "")
    assert called.out.startswith("the größe")
    assert len(called.out) > len("the größe") + 10
    assert colophon("generate", "recipe.toml", *options, *metadata).out == called.out
    assert colophon("generate", "recipe.toml", *options, *metadata, "--guidance", "1").out == called.out
    assert colophon("generate", "recipe.toml", *options, *metadata, "--seed", "1").out != called.out
    cut = colophon("generate", "recipe.toml", *options, "--meta", f"url=https://example.org/{'p' * 300}")
    assert cut.line == f"the last {cut_tokens(here, 300)} tokens of the metadata are cut, as in packing: " + (
        "max_metadata_tokens of 'prepend-url'"
    )
    several = colophon("generate", "recipe.toml", *options, *metadata, "--num-samples", "3")
    assert several.out.startswith(f"--- sample 0\n{called.out}--- sample 1\nthe größe")
    free = colophon("generate", "recipe.toml", *options, *metadata, "--guidance", "0")
    assert free.out == colophon("generate", "recipe.toml", *options, "--condition", "empty").out
    assert colophon("generate", "recipe.toml", "--name", "meta-tokens", "--top-k", "3", "--top-p", "0.5").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "prepend-url", "--meta", "urls=a"], "no metadata field 'urls' before a text; available: url"),
        (["--name", "prepend-url", "--meta", "url"], "--meta url: write field=value"),
        (["--name", "prepend-url", "--meta", "url=a", "--meta", "url=b"], "--meta url=b: url is 'a' already"),
        (["--name", "plain", "--meta", "url=a"], "no metadata field 'url' before a text; available: none"),
        (["--name", "plain", "--condition", "empty"], "has no context 'empty'; available: none"),
        (["--name", "plain", "--condition", "full"], "unknown condition 'full'; available: none, empty, meta, meta_t"),
        (["--name", "plain", "--guidance", "2"], "guidance goes from the empty wrapper to a context"),
        (["--name", "plain", "--max-tokens", "500"], "which leaves 299 to generate"),
        (["--name", "plain", "--top-p", "2"], "top_p must be above 0 and at most 1, got 2.0"),
        (
            ["--name", "plain", "--set", "tokenizer.pattern=cl100k_base"],
            "recipe.toml: [tokenizer] is not the one that plain was trained with: sha256: ",
        ),
    ],
)
def test_errors_of_generate_are_one_line(here: Path, options: list[str], message: str) -> None:
    called = colophon("generate", "recipe.toml", "--prompt", "the", *options)
    assert (called.code, called.out) == (2, "")
    assert message in called.line
