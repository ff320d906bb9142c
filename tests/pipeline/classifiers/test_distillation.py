"""`colophon distill` on a small project: judged texts of several domains, to a classifier that a recipe uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.annotators.conftest import labelled
from tests.pipeline.project import Called, colophon, write_project

TOKENIZER = ("--tokenizer", "path=small.tiktoken", "--tokenizer", "pattern=gpt2")
QUICK = ("--setting", "min_steps=60", "--setting", "epochs=1", "--setting", "bucket_bits=10")
FASTTEXT = ("--kind", "fasttext", "--setting", "dim=8", "--setting", "buckets=500")
NUM_TEXTS = 252


def distill(*options: str, column: str = "label", output: str = "student.model") -> Called:
    return colophon("distill", "--input", "texts.parquet", "--column", column, "--output", output, *options)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_project(root)
    texts, labels = labelled(["high", "low", "Science & Tech"], num_texts=NUM_TEXTS)
    rng = np.random.default_rng(0)
    scores = [{"high": 4.0, "low": 1.0, "Science & Tech": 2.5}[label] + rng.normal() / 4 for label in labels]
    table = pa.table(
        {
            "id": [f"doc {number}" for number in range(NUM_TEXTS)],
            "text": texts,
            "url": [f"https://www.site{number // 3 % 12}.org/{number}" for number in range(NUM_TEXTS)],
            "label": labels,
            "score": scores,
            "tags": [[label, "text"] if label == "low" else [label] for label in labels],
            "nothing": pa.nulls(NUM_TEXTS, pa.string()),
            "when": pa.array([0] * NUM_TEXTS, pa.timestamp("s")),
        }
    )
    pq.write_table(table.drop_columns(["score"]), root / "texts.parquet")
    judged = table.select(["id", "score"]).slice(0, 200)
    pq.write_table(judged.rename_columns(["document", "score"]), root / "judged.parquet")
    pq.write_table(pa.concat_tables([judged, judged.slice(0, 3)]), root / "twice.parquet")
    return root


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project


def parsed(called: Called) -> dict[str, Any]:
    assert called.code == 0, called.err
    found: dict[str, Any] = json.loads(called.out)
    return found


def test_a_score_of_another_file_is_taught_and_both_kinds_are_compared(here: Path) -> None:
    judged = ("--teacher", "judged.parquet", "--teacher-id", "document")
    found = parsed(distill(*judged, "--compare", *TOKENIZER, *QUICK, "--json", column="score", output="s.st"))
    pooled, fasttext = found["agreement"]
    assert (pooled["kind"], fasttext["kind"]) == ("pooled", "fasttext")
    assert pooled["texts"] == fasttext["texts"] == 200 - found["texts"]
    for agreement in (pooled, fasttext):
        assert 0.8 < agreement["metrics"]["spearman"]["value"] <= 1
        assert set(agreement["metrics"]) == {"accuracy", "macro_f1", "spearman", "auc"}
        low, high = agreement["metrics"]["auc"]["low"], agreement["metrics"]["auc"]["high"]
        assert low <= agreement["metrics"]["auc"]["value"] <= high
        assert sum(map(sum, agreement["confusion"])) == agreement["texts"]
    for name, difference in fasttext["differences"].items():
        assert difference["low"] <= difference["value"] <= difference["high"]
        expected = pooled["metrics"][name]["value"] - fasttext["metrics"][name]["value"]
        assert difference["value"] == pytest.approx(expected)
    assert (list(fasttext["differences"]), pooled["differences"]) == (list(pooled["metrics"]), {})
    assert len(found["card"]["distilled"]["numbers"]) == 6
    assert json.loads(Path("s.st.json").read_text()) == found["card"]


def test_the_model_works_in_a_recipe_as_printed(here: Path) -> None:
    called = distill(*TOKENIZER, *QUICK, output="quality.safetensors")
    assert called.code == 0, called.err
    assert "held out" in called.out and "most wrong" not in called.out
    table = called.out[called.out.index("[annotators.") :]
    Path("with.toml").write_text(Path("recipe.toml").read_text() + table)
    run = colophon("annotate", "with.toml", "--executor", "inline", "--set", "output.path=annotated")
    assert run.code == 0, run.err
    assert "tokens" not in run.out, "nothing has counted them"
    columns = pq.read_table(next(Path("annotated/annotations/label_pooled").glob("*.parquet"))).column_names
    assert columns == ["id", "label_pooled", "label_pooled_score"]


def test_domains_are_held_out_as_a_whole_by_the_seed_alone(here: Path) -> None:
    def held_out(*options: str) -> dict[str, Any]:
        found = parsed(distill(*FASTTEXT, "--json", *options))
        split: dict[str, Any] = found["card"]["distilled"]["split"]
        assert found["agreement"][0]["texts"] == split["held_out_texts"]
        assert split["held_out_texts"] % (NUM_TEXTS / 12) == 0
        return split

    assert held_out() == held_out()
    assert held_out("--held-out", "0.7")["held_out_texts"] > held_out()["held_out_texts"]


@pytest.mark.parametrize("kind", [FASTTEXT, (*TOKENIZER, *QUICK)], ids=["fasttext", "pooled"])
def test_tags_are_any_number_of_labels(here: Path, kind: tuple[str, ...]) -> None:
    found = parsed(distill(*kind, "--json", column="tags"))
    (agreement,) = found["agreement"]
    assert set(agreement["labels"]) == {"high", "low", "Science & Tech", "text"}
    assert agreement["confusion"] is None
    assert agreement["metrics"]["auc"]["value"] > 0.9
    rare = parsed(distill(*kind, "--json", "--most-labels", "2", column="tags"))
    assert len(rare["agreement"][0]["labels"]) == 2


@pytest.mark.parametrize(
    ("options", "column", "message"),
    [
        ((), "gone", "gone"),
        ((), "nothing", "no text has a value of 'nothing'"),
        ((), "when", "when: has type timestamp"),
        (("--teacher", "twice.parquet"), "score", "twice.parquet: 3 rows have an id that another row has"),
        (("--held-out", "0"), "label", "none would be held out"),
        (("--held-out", "1"), "label", "all would be held out"),
        (("--tokenizer", "name=gpt2"), "label", "--tokenizer is for --kind pooled"),
        (("--compare",), "label", "--tokenizer is required"),
        (("--setting", "epochs=3"), "label", "epochs"),
    ],
)
def test_wrong_input_is_one_line(here: Path, options: tuple[str, ...], column: str, message: str) -> None:
    called = distill(*FASTTEXT, *options, column=column, output="never.bin")
    assert called.code == 2
    assert message in called.line
    assert not Path("never.bin").exists()
