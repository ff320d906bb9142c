"""The commands `probe`, `attention` and `plot`, from documents to files, over a run of a few seconds."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.reports.study_tables import probe_table
from tests.pipeline.project import Called, colophon, run, write_tokenizer

RECIPE = """
[input]
paths = ["docs.parquet"]
[output]
path = "out"
[annotators.url]
[annotators.crawl]
[tokenizer]
path = "small.tiktoken"
pattern = "gpt2"
[pack]
sequence_length = 128
[layouts.plain]
position = "plain"
[layouts.prepend-url]
position = "prepend"
template = "{url}"
max_metadata_tokens = 40
[layouts.meta-tokens]
position = "meta_tokens"
num_meta_tokens = 3
[train.url]
layout = "prepend-url"
model = { num_layers = 2, hidden_size = 32, ffn_size = 64, num_heads = 4, num_kv_heads = 2 }
steps = 4
batch_size = 2
validation_every = 2
[train.meta]
layout = "meta-tokens"
model = { num_layers = 2, hidden_size = 32, ffn_size = 64, num_heads = 4, num_kv_heads = 2 }
steps = 2
batch_size = 2
[train.plain]
layout = "plain"
model = { num_layers = 1, hidden_size = 32, ffn_size = 64, num_heads = 2, num_kv_heads = 2 }
steps = 1
batch_size = 2
"""
_WORDS = {2013: "the reader and the value", 2019: "größe über τέλος 東京"}


def _document(number: int) -> dict[str, Any]:
    """The year decides the words; domains have documents of both years."""
    source, year = random.Random(number), (2013, 2019)[number % 2]
    return {
        "text": " ".join(source.choices(_WORDS[year].split(), k=120)),
        "id": str(number),
        "url": f"https://www{number % 3}.site{number // 2 % 15}.example/{source.choice('abc')}/größe?{number}",
        "dump": f"CC-MAIN-{year}-10",
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three trained models."""
    root = tmp_path_factory.mktemp("studied")
    pq.write_table(pa.Table.from_pylist([_document(number) for number in range(150)]), root / "docs.parquet")
    write_tokenizer(root / "small.tiktoken")
    (root / "recipe.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert run().code == 0
        assert colophon("train", "recipe.toml").code == 0
    return root


@pytest.fixture
def called(project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(project)

    def call(command: str, *arguments: str) -> Called:
        return colophon(command, "recipe.toml", *arguments)

    return call


def figures_are_there(to: Path) -> None:
    assert to.with_name(f"{to.name}.png").read_bytes().startswith(b"\x89PNG")
    assert to.with_name(f"{to.name}.svg").read_text().rstrip().endswith("</svg>")


def test_a_year_that_decides_the_words_is_predicted_from_the_states(called: Any) -> None:
    done = called("probe", "--name", "url", "--column", "crawl_year", "--crop", "40", "--split-by", "url_domain")
    assert done.code == 0, done.err
    to = Path("out/training/url/probe-columns=crawl_year-crop=40-split_by=url_domain")
    found = json.loads(to.with_name(f"{to.name}.json").read_text())
    assert (found["name"], found["step"], found["documents"], found["context"]) == ("url", 4, 150, "none")
    assert found["output"] == "out"
    (column,) = found["columns"]
    assert set(column["classes"]) == {"2013", "2019"}
    assert column["split_by"] == "url_domain"
    assert sum(column["groups"].values()) == 30  # hosts, each in one part
    assert len(column["results"]) == 3 * 2 * 2 * 3  # layers, states, probes, models
    best = [r["score"]["accuracy"] for r in column["results"] if r["model"] == "trained" and r["states"] == "mean"]
    shuffled = [r["score"]["accuracy"] for r in column["results"] if r["model"] == "shuffled"]
    assert min(score["value"] for score in best) > 0.9
    assert max(score["value"] for score in shuffled) < 0.8
    assert column["permutations"] == 5
    assert all(score["low"] <= score["value"] <= score["high"] for score in shuffled)
    assert any(score["low"] < score["value"] < score["high"] for score in shuffled)  # not of one permutation
    assert "shuffled labels: mean of 5 permutations [lowest–highest]" in " ".join(done.out.split())
    assert "models of other training seeds may differ by more" in done.out
    gains = [r["accuracy_over_untrained"] for r in column["results"]]
    assert sum(gain is not None for gain in gains) == 12
    assert "crawl_year: 2 classes" in done.out
    assert "text tokens, layers 0, 1, 2\n" in done.out
    assert "The model was trained on documents of out; --output reads them from another run.\n" in done.out
    figures_are_there(to)


def test_layers_context_and_documents_can_be_chosen(called: Any) -> None:
    arguments = ["--name", "url", "--column", "crawl_year", "--column", "url_host", "--split-by", "document"]
    arguments += ["--layers", "2,0", "--context", "empty", "--documents", "140", "--crop", "8", "--output", "out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("colophon.trainer.probes.labels.MIN_DOCUMENTS", 2)
        patch.setattr("colophon.trainer.probes.labels._MIN_DOCUMENTS_A_PART", 1)
        patch.setattr("colophon.trainer.probes.mlp.MAX_EPOCHS", 2)
        done = called("probe", *arguments)
    assert done.code == 0, done.err
    (path,) = Path("out/training/url").glob("probe-columns=crawl_year,url_host-*.json")
    found = json.loads(path.read_text())
    assert (found["documents"], found["context"]) == (140, "empty")
    assert [column["column"] for column in found["columns"]] == ["crawl_year", "url_host"]
    assert {r["layer"] for r in found["columns"][0]["results"]} == {0, 2}
    assert all("limit" in r["warnings"] for r in found["columns"][0]["results"] if r["probe"] == "mlp")
    assert "4 probes of the trained model: not converged at the last iteration or epoch (last, mlp of layers 0, 2;" in (
        done.out
    )
    assert "; *: see the lines below" in done.out
    assert re.search(r"\] +0\.\d\d\*(  |$)", done.out, re.M)
    assert "url_host: macro-F1 depends on classes with fewer than 10 documents in a part: www0.site" in done.out


def test_results_of_different_settings_have_different_files(called: Any) -> None:
    quick = ["--name", "meta", "--column", "crawl_year", "--layers", "0", "--split-by", "document"]
    for context in ("none", "empty"):
        done = called("probe", *quick, "--context", context)
        assert done.code == 0, done.err
    found = sorted(Path("out/training/meta").glob("probe-*.json"))
    assert [json.loads(path.read_text())["context"] for path in found] == ["empty", "none"]


def test_documents_of_another_run_are_not_reported_as_trained_on(called: Any, project: Path) -> None:
    shutil.copytree(project / "out", project / "other", ignore=shutil.ignore_patterns("training"))
    done = called("probe", "--name", "plain", "--column", "crawl_year", "--layers", "0", "--output", "other")
    assert done.code == 0, done.err
    assert "The model was trained on" not in done.out
    assert "its classes are not" not in done.out


def test_classes_with_different_bins_than_in_training_are_noted(called: Any, project: Path) -> None:
    shutil.copytree(project / "out", project / "binned", ignore=shutil.ignore_patterns("training"))
    manifest = json.loads((project / "binned/manifest.json").read_text())
    manifest["outputs"]["annotations/crawl"]["settings"]["annotator"]["edges"] = [0.5]
    (project / "binned/manifest.json").write_text(json.dumps(manifest))
    done = called("probe", "--name", "plain", "--column", "crawl_year", "--layers", "0", "--output", "binned")
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if line.endswith(": its classes are not those of the training")]
    assert line.startswith("annotator 'crawl' is not that of out (edges ")
    (path,) = Path("out/training/plain").glob("probe-*binned*.json")
    assert json.loads(path.read_text())["notes"] == [line]


def test_the_table_separates_rare_classes_from_classes_in_few_groups() -> None:
    missing = {"documents_without_value": 1, "few_documents": {}, "few_groups": {}, "few_documents_in_a_part": {}}
    score = {"accuracy": {"value": 0.5, "low": None, "high": None}, "macro_f1": {"value": 0.3}}
    column = {"column": "crawl_year", "split_by": "url_domain", "classes": {}, "groups": {}, "results": []}
    rare = {name: {"documents": 3, "groups": 2} for name in ("2013", "2014")}
    large = {"2020": {"documents": 1788, "groups": 1}}
    for excluded, ending in (
        (missing, "excluded: 1 document without a value"),
        (
            {**missing, "documents_without_value": 0, "few_documents": rare, "few_groups": large},
            "excluded: 2 classes with too few documents (6 documents), 1 class in too few groups (1,788 documents)",
        ),
    ):
        caption = probe_table({**column, "permutations": 5, "majority": score, "excluded": excluded}).caption
        assert str(caption).endswith(ending)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--column", "topic"], "no annotator has a column 'topic'; available: crawl_slice, crawl_year, url, "),
        (["--column", "crawl_year", "--layers", "5"], "no layer 5; available: 0 (the embedding) to 2"),
        (["--column", "crawl_year", "--layers", "x"], "--layers: all, or numbers such as 0,6,12; got 'x'"),
        (["--column", "crawl_year", "--context", "true"], "unknown context 'true'; available: none, empty"),
        (
            ["--column", "crawl_year", "--context", "empty", "--name", "plain"],
            "layout 'plain' has no context 'empty'; available: none",
        ),
        (["--column", "crawl_year", "--split-by", "host"], "no annotator has a column 'host'; available: crawl_slice"),
        (["--column", "url_suffix"], "column 'url_suffix' has fewer than two classes"),
        (["--column", "crawl_year", "--name", "x"], "no such training run; available: meta, plain, url"),
    ],
)
def test_errors_of_probe_are_one_line(called: Any, arguments: list[str], message: str) -> None:
    done = called("probe", *(() if "--name" in arguments else ("--name", "url")), *arguments)
    assert done.code == 2
    assert message in done.line


def test_attention_to_the_parts_of_urls(called: Any) -> None:
    done = called("attention", "--name", "url", "--documents", "30", "--crop", "50")
    assert done.code == 0, done.err
    stem = "out/training/url/attention-crop=50-documents=30"
    found = json.loads(Path(f"{stem}.json").read_text())
    parts = {part["part"]: part for part in found["parts"]}
    assert list(parts) == ["bos", "wrapper", "url_prefix", "url_domain", "url_suffix", "text"]
    assert sum(part["mass"]["value"] for part in parts.values()) == pytest.approx(1, rel=1e-4)
    assert sum(part["uniform"] for part in parts.values()) == pytest.approx(1, rel=1e-4)
    assert (parts["bos"]["tokens"], parts["wrapper"]["tokens"]) == (1, 2)
    assert parts["url_prefix"]["tokens"] == len("https://")  # this vocabulary encodes it in single bytes
    assert len(parts["text"]["by_layer"]) == 2
    assert [len(heads) for heads in parts["text"]["by_head"]] == [4, 4]
    assert found["bins"] is None
    assert "url_domain" in done.out
    figures_are_there(Path(stem))
    assert (
        ">url, step 4, layout prepend-url: attention of text tokens (30 documents)<" in Path(f"{stem}.svg").read_text()
    )
    same = called("attention", "--name", "url", "--layout", "prepend-url", "--documents", "5")
    assert "out/training/url/attention-documents=5-layout=prepend-url.json" in same.out.splitlines()


def test_attention_to_meta_tokens_by_a_column(called: Any) -> None:
    done = called("attention", "--name", "meta", "--column", "crawl_year", "--documents", "40", "--crop", "110")
    assert done.code == 0, done.err
    stem = "out/training/meta/attention-column=crawl_year-crop=110-documents=40"
    found = json.loads(Path(f"{stem}.json").read_text())
    names = [part["part"] for part in found["parts"]]
    assert names == ["bos", "wrapper", "meta_token_1", "meta_token_2", "meta_token_3", "text"]
    assert set(found["bins"]["bins"]) == {"2013", "2019"}
    assert [distances["metric"] for distances in found["bins"]["distances"]] == ["cosine", "euclidean"]
    assert "untrained" in done.out
    figures_are_there(Path(stem))
    figures_are_there(Path(f"{stem}-bins"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "plain"], "layout 'plain' (plain) has nothing before the text to attend to"),
        (["--name", "url", "--column", "crawl_year"], "layout 'prepend-url' has no meta tokens whose attention"),
        (["--name", "url", "--layout", "x"], "url was not trained on layout 'x'; it was trained on prepend-url"),
        (
            ["--name", "url", "--layout", "meta-tokens"],
            "url was not trained on layout 'meta-tokens'; it was trained on prepend",
        ),
        (["--name", "meta", "--column", "x"], "no annotator has a column 'x'; available"),
        (["--name", "meta", "--column", "crawl_year", "--crop", "20"], "fewer than two bins have 5 documents of at"),
    ],
)
def test_errors_of_attention_are_one_line(called: Any, arguments: list[str], message: str) -> None:
    done = called("attention", *arguments)
    assert done.code == 2
    assert message in done.line


def test_curves_of_all_runs_and_of_some(called: Any, tmp_path: Path) -> None:
    done = called("plot", "--smooth", "0")
    assert done.out.split() == ["out/training/text_loss.png", "out/training/text_loss.svg"]
    svg = Path("out/training/text_loss.svg").read_text()
    assert all(f">{name}<" in svg for name in ("url", "meta", "plain"))
    to = tmp_path / "curves.svg"
    done = called("plot", "--name", "url", "--name", "meta", "--x", "tokens", "--y", "lr", "--to", str(to))
    assert done.out.split() == [str(to)]
    assert ">plain<" not in to.read_text()
    assert ">learning rate<" in to.read_text()


def test_without_matplotlib_a_study_writes_its_numbers(called: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    done = called("attention", "--name", "url", "--documents", "5", "--crop", "5")
    assert done.code == 0
    assert set(done.out.splitlines()[-2:]) == {
        "out/training/url/attention-crop=5-documents=5.json",
        "no figure: figures need matplotlib: install colophon[plot]",
    }
    assert called("plot").line == "figures need matplotlib: install colophon[plot]"


def test_a_run_without_training_has_no_curves(called: Any) -> None:
    assert "no training run has metrics yet" in called("plot", "--set", "output.path=elsewhere").line
