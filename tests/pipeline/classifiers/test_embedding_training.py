"""An `embedding` classifier from labelled files to columns of a run, with a static model and with a plugin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.annotators.conftest import COMMON, WORDS, labelled
from tests.pipeline.project import Called, colophon, manifest, run, write_project

STATIC = ("--embedder", "static=static")
QUICK = ("--setting", "min_steps=400", "--setting", "epochs=1", "--setting", "hidden=8")
RECIPE = """
[annotators.known]
type = "embedding"
static = "static"
model = "known.safetensors"
[annotators.known.heads.quality]
score = { probability_of = "high" }
bins = { quantiles = 2 }
"""
PLUGIN = '''
"""Texts as counts of letters."""

import numpy as np

from colophon.annotators.embedding_classifier import EmbedderConfig


class LetterConfig(EmbedderConfig):
    """Counts letters."""

    type_name = "letters"

    alphabet: str

    def embedder(self):
        return Letters(self.alphabet)


class Letters:
    def __init__(self, alphabet):
        self.identity = f"letters {alphabet}"
        self.alphabet = None

    def load(self):
        self.alphabet = self.identity.split()[1]

    def embed(self, texts):
        return np.array([[text.count(letter) for letter in self.alphabet] for text in texts], np.float32)
'''


def train(*options: str, output: str = "known.safetensors", embedder: tuple[str, ...] = STATIC) -> Called:
    return colophon(
        *("train-classifier", "--kind", "embedding", "--train", "labels.parquet", "--output", output),
        *(*embedder, *QUICK, *options),
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a static model, a trained model of two heads, and a recipe that has them."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_project(root)
        vocabulary = {word: i for i, word in enumerate(["[UNK]", *COMMON, *WORDS["high"], *WORDS["low"]])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        Path("static").mkdir()
        tokenizer.save("static/tokenizer.json")
        vectors = np.random.default_rng(0).normal(size=(len(vocabulary), 16)).astype(np.float32)
        save_file({"embeddings": vectors}, "static/model.safetensors")
        Path("static/config.json").write_text('{"normalize": true}')
        texts, labels = labelled(["high", "low"], num_texts=240)
        half = [label if number % 4 < 2 else None for number, label in enumerate(labels)]
        urls = [f"https://www.site{number // 3 % 8}.org/{number}" for number in range(len(texts))]
        tags = [[label, "text"] if label == "low" else [label] for label in labels]
        random = np.random.default_rng(1)
        ready = [None if n % 60 == 7 else random.normal(label == "low", 0.2, 4) for n, label in enumerate(labels)]
        columns = {"text": texts, "url": urls, "quality": labels, "half": half, "tags": tags}
        table = columns | {"gpu_model": pa.array(ready, pa.list_(pa.float64())).cast(pa.list_(pa.float32(), 4))}
        pq.write_table(pa.table(table), root / "labels.parquet")
        (root / "letters.py").write_text(PLUGIN)
        called = train("--label", "quality", "--label", "half", "--test", "labels.parquet", "--json")
        assert called.code == 0, called.err
        (root / "called.json").write_text(called.out)
        (root / "recipe.toml").write_text((root / "recipe.toml").read_text() + RECIPE)
    return root


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project


def test_the_model_its_card_and_its_scores(here: Path) -> None:
    called = json.loads((here / "called.json").read_text())
    assert called["test"]["quality"]["accuracy"] > 0.9
    assert called["test"]["half"]["num_texts"] == 120
    card = json.loads((here / "known.safetensors.json").read_text())
    assert [head["name"] for head in card["heads"]] == ["quality", "half"]
    assert card["embedder"].startswith("static model ")
    assert card["training"]["texts"] == {"quality": 240, "half": 120}
    assert card["test"] == called["test"]


def test_equal_settings_give_equal_files(here: Path) -> None:
    for name in ("a", "b"):
        assert train("--label", "quality", output=f"{name}.safetensors").code == 0
    assert Path("a.safetensors").read_bytes() == Path("b.safetensors").read_bytes()


def test_a_run_writes_the_columns_of_a_head(here: Path) -> None:
    called = colophon("annotate", "recipe.toml", "--executor", "inline")
    assert called.code == 0, called.err
    found = pq.read_table(next(Path("out/annotations/known").glob("*.parquet")))
    assert found.column_names == ["id", "known_quality", "known_quality_score"]
    settings = manifest("out").outputs["annotations/known"].settings["annotator"]
    assert settings["embedder"] == json.loads(Path("known.safetensors.json").read_text())["embedder"]


def test_a_static_model_that_was_not_trained_with_is_refused(here: Path) -> None:
    Path("other").mkdir(exist_ok=True)
    for file in Path("static").iterdir():
        Path("other", file.name).write_bytes(file.read_bytes())
    Path("other/config.json").write_text('{"normalize": false}')
    called = run("--dry-run", "--no-probe", "--set", "annotators.known.static=other")
    assert called.code == 2
    assert "known.safetensors: was trained with the embedder 'static model" in called.line


def test_a_plugin_brings_an_embedder_of_its_own(here: Path) -> None:
    """Trained, taught and run without a line of Colophon that knows it."""
    options = ("--plugin", "letters.py", "--embedder", "type=letters", "--embedder", "alphabet=abcdefghijklm")
    called = train("--label", "quality", embedder=options, output="letters.safetensors")
    assert called.code == 0, called.err
    taught = colophon(
        *("distill", "--kind", "embedding", "--input", "labels.parquet", "--column", "tags"),
        *("--output", "tags.safetensors", *options, *QUICK),
    )
    assert taught.code == 0, taught.err
    table = taught.out[taught.out.index("[annotators.") :]
    assert 'type = "letters"\nalphabet = "abcdefghijklm"\nmodel = "tags.safetensors"' in table
    plain = RECIPE.replace('type = "embedding"\nstatic = "static"', 'type = "letters"\nalphabet = "abcdefghijklm"')
    plain = plain.replace("known.safetensors", "letters.safetensors")
    text = Path("recipe.toml").read_text().replace(RECIPE, plain)
    Path("plugin.toml").write_text(text + table + '[plugins]\nfiles = ["letters.py"]\n')
    called = colophon("annotate", "plugin.toml", "--plugins", "--executor", "inline", "--set", "output.path=plugin")
    assert called.code == 0, called.err
    found = pq.read_table(next(Path("plugin/annotations/known").glob("*.parquet")))
    assert found.column_names == ["id", "known", "known_score"]
    changed = colophon(*("annotate", "plugin.toml", "--plugins", "--set", 'annotators.known.alphabet="xyz"'))
    assert changed.code == 2
    assert "letters.safetensors: was trained with the embedder 'letters abcdefghijklm', not with" in changed.line


def test_ready_vectors_train_teach_and_score(here: Path) -> None:
    """The whole way without an embedder, beside a classifier that reads the texts."""
    ready = ("--embedder", "column=gpu_model")
    called = train("--label", "quality", "--test", "labels.parquet", "--json", embedder=ready, output="v.safetensors")
    assert called.code == 0, called.err
    assert json.loads(called.out)["test"]["quality"]["num_texts"] == 236
    taught = colophon(
        *("distill", "--kind", "embedding", "--input", "labels.parquet", "--column", "quality", *QUICK, *ready),
        *("--output", "taught.safetensors", "--json"),
    )
    assert taught.code == 0, taught.err
    (agreement,) = json.loads(taught.out)["agreement"]
    assert agreement["unscored"] and agreement["metrics"]["accuracy"]["value"] > 0.9
    annotators = '[annotators.quality]\ntype = "embedding"\ncolumn = "gpu_model"\nmodel = "v.safetensors"\n'
    Path("ready.toml").write_text(f'[input]\npaths = ["labels.parquet"]\n[output]\npath = "ready"\n{annotators}')
    called = colophon("annotate", "ready.toml", "--executor", "inline")
    assert called.code == 0, called.err
    found = pq.read_table(next(Path("ready/annotations/quality").glob("*.parquet")))
    assert found.column("quality_score").null_count == 4
    right = pc.equal(found["quality"], pq.read_table("labels.parquet")["quality"])
    assert pc.sum(right).as_py() > 0.9 * 236
    called = colophon("annotate", "ready.toml", "--set", "annotators.quality.column=text")
    assert called.code == 2
    assert "was trained with the embedder 'column gpu_model', not with 'column text'" in called.line
    called = train("--label", "quality", embedder=("--embedder", "column=url"), output="never.safetensors")
    assert "labels.parquet: column 'url' is string, not list<" in called.line


@pytest.mark.slow
def test_all_kinds_are_compared(here: Path) -> None:
    called = colophon(
        *("distill", "--kind", "embedding", "--compare", "--input", "labels.parquet", "--column", "quality", "--json"),
        *("--output", "taught.safetensors", *STATIC, *QUICK, "--tokenizer", "path=small.tiktoken"),
        *("--tokenizer", "pattern=gpt2"),
    )
    assert called.code == 0, called.err
    agreements = json.loads(called.out)["agreement"]
    assert [agreement["kind"] for agreement in agreements] == ["embedding", "fasttext", "pooled"]
    assert agreements[0]["metrics"]["accuracy"]["value"] > 0.9


@pytest.mark.parametrize(
    ("embedder", "options", "message"),
    [
        ((), ["--label", "quality"], "--embedder is required: static=DIRECTORY"),
        (("--embedder", "static=gone"), ["--label", "quality"], "gone: has no config.json; a static model is a folder"),
        (("--embedder", "type=crawl"), ["--label", "quality"], "--embedder: annotators.embedder.model: unknown key"),
        (("--embedder", "type=fasttxt"), ["--label", "quality"], "unknown annotator 'fasttxt'; available: "),
        (
            ("--embedder", "type=pooled"),
            ["--label", "quality"],
            "--embedder: pooled is no annotator with an embedder",
        ),
        (STATIC, ["--label", "quality", "--plugin", "gone.py"], "--plugin: plugins.files: gone.py: no such file"),
        (STATIC, ["--label", "quality", "--setting", "hidden=-1"], "--setting"),
        (STATIC, ["--label", "quality", "--tokenizer", "name=gpt2"], "--tokenizer is for --kind pooled"),
        (STATIC, ["--label", "quality", "--normalize", "lower=true"], "are for --kind fasttext"),
    ],
)
def test_wrong_options_are_one_line(here: Path, embedder: tuple[str, ...], options: list[str], message: str) -> None:
    called = train(*options, embedder=embedder, output="never.safetensors")
    assert called.code == 2
    assert message in called.line
    assert not Path("never.safetensors").exists()


def test_texts_without_a_vector_cannot_train(here: Path) -> None:
    pq.write_table(pa.table({"text": ["zzz", "yyy"], "label": ["a", "b"]}), "unknown.parquet")
    called = colophon(
        *("train-classifier", "--kind", "embedding", "--train", "unknown.parquet", "--output", "never.safetensors"),
        *STATIC,
    )
    assert called.code == 2
    assert "the embedder has a vector for none of the texts" in called.line
    assert (
        "--embedder is for --kind embedding"
        in colophon(*("train-classifier", "--train", "unknown.parquet", "--output", "never.bin", *STATIC)).line
    )
