"""The labels of the demo's documents, and their split by package."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipeline.demo.site_packages import build, install, module, rows


def test_labels_come_from_classifiers_and_from_the_share_of_prose(site: Path, tmp_path: Path) -> None:
    install(site, "general", {"general.py": module("general")}, classifier="Topic :: Utilities")
    corpus = build(site, tmp_path / "demo")
    documents = {str(row["file_path"]): row for row in rows(corpus)}
    assert documents["pkg00/part0.py"]["topic"] == "Mathematics & Physics"
    assert documents["pkg01/part0.py"]["topic"] == "Web & Networking"
    assert documents["general.py"]["topic"] is None
    assert documents["pkg00/part0.py"]["quality"] == "high"
    assert documents["pkg00/args0.py"]["quality"] == "low"
    assert corpus.topics == {"Mathematics & Physics": 42, "Web & Networking": 42, "unlabelled": 1}
    assert corpus.qualities == {"high": 61, "low": 24}


@pytest.mark.parametrize("kind", ["topic", "quality"])
def test_labels_are_split_by_package_with_every_label_on_both_sides(kind: str, site: Path, tmp_path: Path) -> None:
    corpus = build(site, tmp_path / "demo")
    package_of = {row["text"]: re.split(r"[/-]", str(row["file_path"]))[0] for row in rows(corpus)}
    validation = set(pq.read_table(corpus.validation_file)["text"].to_pylist())
    train = pq.read_table(corpus.label_files[f"{kind}_train"])
    test = pq.read_table(corpus.label_files[f"{kind}_test"])
    assert train.column_names == test.column_names == ["text", "label"]
    assert set(train["label"].to_pylist()) == set(test["label"].to_pylist())
    packages = [{package_of[text] for text in part["text"].to_pylist()} for part in (train, test)]
    assert packages[0] and packages[1] and not packages[0] & packages[1]
    assert not validation & {*train["text"].to_pylist(), *test["text"].to_pylist()}
    assert 0.1 < test.num_rows / (train.num_rows + test.num_rows) < 0.3


def test_a_label_of_only_one_package_is_split_by_document(site: Path, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {f"lonely/part{k}.py": module(f"lonely{k}") for k in range(10)}
    install(site, "lonely", files, classifier="Topic :: Security")
    corpus = build(site, tmp_path / "demo")
    for part in ("train", "test"):
        assert "Systems & Security" in pq.read_table(corpus.label_files[f"topic_{part}"])["label"].to_pylist()
