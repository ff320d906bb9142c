"""The first documents of a real web file through the whole recipe."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from tests.pipeline.project import LAYOUTS, RECIPE, colophon, hashes, manifest, resolved_recipe, run

pytestmark = pytest.mark.shared
ROWS = 600


@pytest.fixture
def web(project: Path, shared_data: Path) -> pa.Table:
    """A recipe with the real vocabulary over the first documents of a file; the value is its table."""
    table = pq.ParquetFile(shared_data / "web/train-00000.parquet").read_row_group(0).slice(0, ROWS)
    pq.write_table(table, "web.parquet", row_group_size=100)
    text = RECIPE.replace('"data/*.parquet"', '"web.parquet"').replace(
        "partition_bytes = 7000", "partition_bytes = 400000"
    )
    text = text.replace("sequence_length = 64", "sequence_length = 512")
    text = text.replace("{quality_fine} {crawl_year}", "{url_host} {crawl_year}")
    text = text.replace('"small.tiktoken"', f'"{shared_data / "vocab/gpt2.tiktoken"}"')
    Path("recipe.toml").write_text(text)
    return table


def test_real_documents_are_complete_in_every_layout(web: pa.Table) -> None:
    called = run()
    assert (called.code, called.err) == (0, "")
    verified = colophon("verify", "recipe.toml")
    assert (verified.code, verified.err) == (0, "")
    result = manifest()
    assert len(result.partitions) > 2
    assert sum(record.rows for record in result.outputs["tokens"].records) == ROWS
    tokens = sum(record.counts["tokens"] for record in result.outputs["tokens"].records)
    # The data set's own count of GPT-2 tokens, from another program.
    assert tokens == pa.compute.sum(web.column("token_count")).as_py()
    for layout in LAYOUTS:
        dataset = PackedDataset.open(Path("out"), layout)
        rows = dataset.rows(range(len(dataset)))
        assert int((rows.roles == Role.TEXT).sum()) == tokens
        assert 1 - (rows.roles == Role.PAD).mean() > 0.98
    assert run("--set", "output.path=again").code == 0
    assert hashes(manifest("again")) == hashes(result)


def test_the_first_document_can_be_read_back_from_its_sequences(web: pa.Table) -> None:
    assert run().code == 0
    tokenizer = resolved_recipe().tokenizer
    file = PackedDataset.open(Path("out"), "prepend-url").files[0]
    _, lengths, roles, documents = file.all_runs()
    starts = lengths.astype("int64").cumsum() - lengths
    ids = file.input_ids.reshape(-1)
    text = [
        ids[start : start + length]
        for start, length, role, document in zip(starts, lengths, roles, documents, strict=True)
        if role == Role.TEXT and document == 0
    ]
    assert tokenizer.decode([token for part in text for token in part]) == web.column("text")[0].as_py()
