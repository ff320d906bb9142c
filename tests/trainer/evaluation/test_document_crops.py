from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colophon.shards.arrow_files import read_table
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import read_manifest
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.document_crops import RunDocuments
from tests.trainer.counting import CountingTokenizer, write_counting_run
from tests.trainer.evaluation.small_project import LAYOUTS, evaluated_model
from tests.trainer.runs import TOKENIZER


def segments_of(output: Path, layout: str) -> dict[tuple[str, int], tuple[list[int], list[int]]]:
    """The ids before each document's text in packed files, and those of the text, by partition and row."""
    found = {}
    for file in PackedDataset.open(output, layout).files:
        for row in range(len(file)):
            lengths, roles, documents = (values.tolist() for values in file.runs(row))
            ids, at = file.input_ids[row].tolist(), 0
            for length, role, document in zip(lengths, roles, documents, strict=True):
                prefix, text = found.setdefault((file.path.stem, document), ([], []))
                if role == Role.TEXT:
                    text.extend(ids[at : at + length])
                elif not text:
                    prefix.extend(ids[at : at + length])
                at += length
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_contexts_and_texts_equal_those_of_packed_rows(here: Path, tokenizer: Tokenizer, layout: str) -> None:
    output, packed = here / "out", segments_of(here / "out", layout)
    trained = evaluated_model(output, layout).layout
    columns = list(trained.layout.fields) if trained.reads_metadata else []
    info = PackedDataset.open(output, layout).tokenizer
    documents = RunDocuments(output).crops(
        count=10_000, crop=300, seed=0, columns=columns, tokenizer=info, decode=tokenizer.decode
    )
    metadata = (
        trained.metadata(documents.columns, num_documents=len(documents), encoder=tokenizer)
        if columns
        else [None] * len(documents)
    )
    prefixes = trained.prefixes(LAYOUTS[layout], metadata, seed=0)  # type: ignore[arg-type]
    records = read_manifest(output).outputs["tokens"].records
    keys = [(r.partition, row) for r in records for row in range(r.rows) if packed.get((r.partition, row), ([], []))[1]]
    assert len(keys) == len(documents) > 150
    for key, prefix, text in zip(keys, prefixes, documents.text, strict=True):
        assert packed[key] == (prefix, text.tolist())
    if columns:
        lengths = {len(prefix) for prefix in prefixes}
        assert {3, 24 + 3} <= lengths  # documents without a URL, and with one that is cut


def crops_of(output: Path, **changes: Any) -> Any:
    settings = {
        "count": 100,
        "crop": 8,
        "seed": 0,
        "columns": (),
        "tokenizer": TOKENIZER,
        "decode": CountingTokenizer().decode,
    }
    return RunDocuments(output).crops(**{**settings, **changes})


def test_documents_are_drawn_with_their_annotations(counting: Path) -> None:
    found = crops_of(counting, columns=["step", "parity", "rank"])
    assert len(found) == len(found.num_bytes) == 100
    assert set(found.num_tokens.tolist()) == set(range(4, 9))
    assert found.num_bytes.tolist() == (3 * found.num_tokens).tolist()
    parts = [read_table(counting / f"tokens/{i}.arrow").column("input_ids").to_pylist() for i in (0, 1)]
    whole = {tuple(ids[:8]) for part in parts for ids in part}
    for text, step, parity in zip(found.text, found.columns["step"], found.columns["parity"], strict=True):
        assert tuple(text.tolist()) in whole
        assert (int(text[1]) - int(text[0])) % 20 == step.as_py()
        assert parity.as_py() in (None, "odd" if step.as_py() % 2 else "even")
    assert any(r < 500 / 7 for r in found.columns["rank"].to_pylist())
    again = crops_of(counting, columns=["rank"])
    assert again.columns["rank"].to_pylist() == found.columns["rank"].to_pylist()
    other = crops_of(counting, columns=["rank"], seed=1)
    assert other.columns["rank"].to_pylist() != found.columns["rank"].to_pylist()


def test_all_documents_with_text_are_drawn_if_more_are_asked_for(counting: Path) -> None:
    assert len(crops_of(counting, count=996)) == len(crops_of(counting, count=5000)) == 996  # four have none
    assert len(crops_of(counting, count=1)) == 1


def test_a_crop_does_not_cut_a_character(here: Path, tokenizer: Tokenizer) -> None:
    info = PackedDataset.open(here / "out", "plain").tokenizer

    def cropped(crop: int) -> Any:
        documents = RunDocuments(here / "out")
        return documents.crops(count=999, crop=crop, seed=0, columns=(), tokenizer=info, decode=tokenizer.decode)

    whole, shorter = cropped(300), 0
    for crop in range(5, 40):
        found = cropped(crop)
        for text, size, everything in zip(found.text, found.num_bytes, whole.text, strict=True):
            assert text.tolist() == everything[: len(text)].tolist()
            assert len(text) > crop - 4 or len(text) == len(everything)
            shorter += len(text) < min(crop, len(everything))
            decoded = tokenizer.decode(text)
            assert "\ufffd" not in decoded
            assert size == len(decoded.encode())
    assert shorter > 100


def test_errors_of_documents_that_cannot_be_read(counting: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ShardError, match=r"no annotator has a column 'stp'; available: parity, rank, step. Did you mean 'step'"
    ):
        crops_of(counting, columns=["stp"])
    with pytest.raises(ShardError, match="a token file has id 19; the tokenizer has 19 ids"):
        crops_of(counting, tokenizer=TOKENIZER.model_copy(update={"num_ids": 19}))
    with pytest.raises(
        TrainerError,
        match=r"different tokenizer than the model's: name: 'other' -> 'counting'; sha256: '1+\.\.\. -> '0+",
    ):
        RunDocuments(counting).check_tokenizer(TOKENIZER.model_copy(update={"name": "other", "sha256": "1" * 64}))
    with pytest.raises(ShardError, match="is not the output of a finished run"):
        RunDocuments(tmp_path)
    broken = write_counting_run(tmp_path / "broken", num_documents=20)
    (broken / "tokens/1.arrow").write_bytes(b"short")
    with pytest.raises(ShardError, match=r"1\.arrow has 5 bytes; its record states"):
        crops_of(broken)
