"""A run that is rebuilt after a training: the model keeps the layout, tokenizer and annotators of its checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from colophon.annotators.fasttext.training.classifier import train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from tests.pipeline.project import Called, colophon, run, write_project

RECIPE = """
[input]
paths = ["data/*.parquet"]
partition_bytes = 7000
[output]
path = "out"
[annotators.url]
[annotators.crawl]
[annotators.grade]
type = "fasttext"
model = "grade.bin"
score = { probability_of = "high" }
bins = { quantiles = 3 }
[tokenizer]
path = "small.tiktoken"
pattern = "gpt2"
[pack]
sequence_length = 64
[layouts.prepend]
position = "prepend"
template = "{crawl_year} {grade}"
max_metadata_tokens = 16
[train.tiny]
layout = "prepend"
model = { num_layers = 1, hidden_size = 16, ffn_size = 16, num_heads = 2, num_kv_heads = 1 }
steps = 4
batch_size = 2
validation_rows = 12
device = "cpu"
"""
NEW_TEMPLATE = ("--set", "layouts.prepend.template='{url_host} of {crawl_year}'")
NEW_EDGES = ("--set", "annotators.grade.bins={ edges = [0.2, 0.9] }")
EVALUATE = ("evaluate", "recipe.toml", "--name", "tiny", "--crop", "9", "--output", "out", "--json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rebuilt")
    write_project(root)
    texts = ["the reader and value of column", "nothing läuft größe über in"] * 30
    settings = TrainingSettings(dim=4, epoch=5, word_ngrams=1, buckets=100, min_count=1)
    train_classifier(texts, ["high", "low"] * 30, output=root / "grade.bin", settings=settings)
    (root / "recipe.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert run().code == 0
        called = colophon("train", "recipe.toml")
        assert called.code == 0, called.err
    return root


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def rebuild(*settings: str) -> None:
    called = run("--rebuild", *settings)
    assert called.code == 0, called.err


def losses(called: Called) -> dict[str, float]:
    (result,) = json.loads(called.out)
    return {name: losses["nats_per_token"]["value"] for name, losses in result["conditions"].items()}


def test_after_a_new_template_a_model_keeps_its_own_and_the_change_is_reported(project: Path) -> None:
    before, generate = colophon(*EVALUATE), ("generate", "recipe.toml", "--name", "tiny", "--temperature", "0")
    text = colophon(*generate, "--meta", "grade=1")
    assert (before.code, text.code) == (0, 0)
    rebuild(*NEW_TEMPLATE)
    line = (
        "colophon: layout 'prepend' of out has changed since tiny was trained: "
        "template: '{crawl_year} {grade}' -> '{url_host} of {crawl_year}'. "
        "tiny is used with its own layout, the old one\n"
    )
    after = colophon(*EVALUATE, *NEW_TEMPLATE)
    assert (after.code, after.err.splitlines(keepends=True)[0]) == (0, line)  # then progress, beside the JSON
    assert losses(after) == losses(before)
    again = colophon(*generate, "--meta", "grade=1", *NEW_TEMPLATE)
    assert (again.out, again.err) == (text.out, line)
    refused = colophon(*generate, "--meta", "url_host=a.org", *NEW_TEMPLATE)
    assert "no metadata field 'url_host' before a text; available: crawl_year, grade" in refused.err
    exported = colophon("export-model", "recipe.toml", "--name", "tiny", "--to", "model", *NEW_TEMPLATE)
    assert (exported.code, exported.err) == (0, line)
    readme = Path("model/README.md").read_text()
    assert "Metadata, `{crawl_year} {grade}`, is before the text" in readme
    assert "of {crawl_year}" not in readme
    resumed = colophon("train", "recipe.toml", "--resume", "--set", "train.tiny.steps=6", *NEW_TEMPLATE)
    assert resumed.code == 2
    assert "layouts.prepend.template: '{crawl_year} {grade}' -> '{url_host} of {crawl_year}'" in resumed.line


def test_after_new_edges_metadata_of_another_meaning_is_refused(project: Path) -> None:
    edges = json.loads(Path("out/calibration/grade.json").read_text())["calibration"]["edges"]
    before = colophon(*EVALUATE)
    rebuild(*NEW_EDGES)
    for command in (EVALUATE, ("attention", "recipe.toml", "--name", "tiny", "--output", "out")):
        refused = colophon(*command, *NEW_EDGES)
        assert refused.code == 2
        assert "annotator 'grade' of out is not the one of the training (tiny): edges [" in refused.line
        assert "] in training, [0.2, 0.9] here; write bins = { edges = [" in refused.line
    assert colophon(*EVALUATE, "--conditions", "empty", *NEW_EDGES).code == 0
    by_document = ("--output", "out", "--split-by", "document", "--layers", "0", "--crop", "8")
    probed = colophon("probe", "recipe.toml", "--name", "tiny", "--column", "grade", *by_document, *NEW_EDGES)
    assert "annotator 'grade' is not that of tiny (edges [" in probed.out, probed.err
    resumed = colophon("train", "recipe.toml", "--resume", "--set", "train.tiny.steps=6", *NEW_EDGES)
    assert resumed.code == 2
    assert "layouts.prepend.annotators.grade.edges: [" in resumed.line
    assert "-> [0.2" in resumed.line
    old = ("--set", f"annotators.grade.bins={{ edges = {json.dumps(edges)} }}")  # as the message advises
    rebuild(*old)
    assert losses(colophon(*EVALUATE, *old)) == losses(before)


def test_another_tokenizer_is_refused_with_both_before_any_work(project: Path) -> None:
    changed = ("--set", "tokenizer.pattern=cl100k_base")
    rebuild(*changed)
    for command in (
        EVALUATE,
        ("generate", "recipe.toml", "--name", "tiny"),
        ("export-model", "recipe.toml", "--name", "tiny", "--to", "model"),
        ("probe", "recipe.toml", "--name", "tiny", "--column", "crawl_year"),
        ("attention", "recipe.toml", "--name", "tiny"),
    ):
        refused = colophon(*command, *changed)
        assert (refused.code, refused.out) == (2, "")
        assert "recipe.toml: [tokenizer] is not the one that tiny was trained with: sha256: '" in refused.line
        assert "' -> '" in refused.line or "... -> '" in refused.line
        unchanged = colophon(*command)  # the recipe is that of the training, its output is not
        if command[0] in {"generate", "export-model"}:
            assert unchanged.code == 0, unchanged.err
        else:
            assert unchanged.code == 2
            assert "out was tokenized with a different tokenizer than the model's: " in unchanged.line


def test_a_later_layout_with_more_meta_tokens_changes_nothing(project: Path) -> None:
    more = ("--set", "layouts.more={ position = 'meta_tokens', num_meta_tokens = 9 }")
    before = losses(colophon(*EVALUATE))
    rebuild(*more)
    assert losses(colophon(*EVALUATE, *more)) == before
    assert colophon("export-model", "recipe.toml", "--name", "tiny", "--to", "model", *more).code == 0
    assert colophon("generate", "recipe.toml", "--name", "tiny", *more).code == 0


def test_a_checkpoint_of_an_earlier_version_is_refused_in_one_line(project: Path) -> None:
    (state,) = project.glob("out/training/tiny/checkpoints/*/state.json")
    saved = json.loads(state.read_text())
    del saved["data"]
    state.write_text(json.dumps(saved))
    for command in (EVALUATE, ("train", "recipe.toml", "--resume")):
        refused = colophon(*command)
        assert refused.code == 2
        assert "an earlier version wrote this checkpoint, without the layout, tokenizer and annotators" in refused.line
