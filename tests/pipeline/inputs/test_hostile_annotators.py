"""Each annotator of real text over all broken and unusual files: every document has a row, and every loss an entry."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.annotators.pooled.model_file import TokenizerIdentity
from colophon.shards.tokenizer.tokenizer import TokenizerConfig, load_tokenizer
from tests.annotators.conftest import train
from tests.annotators.embedding.small_model import write_heads, write_static_model
from tests.annotators.pooled.small_model import INFO, write_small_model
from tests.pipeline.inputs.test_hostile import SOUND, UNREADABLE, UNUSABLE
from tests.pipeline.project import colophon, manifest, quarantine, write_project

pytestmark = pytest.mark.shared

FAST_RULES = "max_chars = 600"
"""datatrove's filters take seconds for a MB."""
TEXT = {
    # annotator of texts: its settings
    "c4": FAST_RULES,
    "embedding": 'static = "static"\nmodel = "heads.safetensors"',
    "fineweb": FAST_RULES,
    "gopher": FAST_RULES,
    "language": 'model = "language.bin"',
    "phones": 'type = "pii"\nkinds = ["phone"]\nphone_regions = ["US"]',
    "pii": "",
    "pooled": 'model = "pooled.safetensors"',
}
URL = {
    "blocklist": 'lists = { sites = { kind = "domains", entries = ["reddit.com"] } }',
    "robots": 'files = "robots.jsonl"',
}
LIBRARIES = {"phones": "phonenumbers", "robots": "protego"}
SLOW = ("phones",)
EVERY = sorted([*SOUND, *UNREADABLE, *UNUSABLE, "bad_lines.jsonl", "not_data.txt"])
ROWS = {**SOUND, "bad_lines.jsonl": 13, "invalid_utf8.parquet": 6, "not_data.txt": 1}
TOKENIZER = '[tokenizer]\npath = "small.tiktoken"\npattern = "gpt2"\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Iterator[Path]:
    """A project with the hostile files and small models."""
    root = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_project(root)
        Path("hostile").symlink_to(shared_data / "hostile")
        Path("robots.jsonl").write_text('{"domain": "reddit.com", "robots_txt": "user-agent: *\\ndisallow: /r"}')
        train(root / "language.bin", ["high", "low"], loss="softmax")
        write_heads(root / "heads.safetensors", write_static_model(root / "static"))
        tokenizer = load_tokenizer(TokenizerConfig(path="small.tiktoken", pattern="gpt2"))
        known = TokenizerIdentity(name=tokenizer.name, sha256=tokenizer.sha256, num_ids=tokenizer.num_ids)
        write_small_model(root / "pooled.safetensors", INFO.model_copy(update={"tokenizer": known}))
        yield root


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in (*TEXT, *URL)]
)
def test_every_file_is_annotated_or_in_quarantine(project: Path, name: str) -> None:
    if name in LIBRARIES and not find_spec(LIBRARIES[name]):
        pytest.skip(f"needs {LIBRARIES[name]}")
    paths = ", ".join(f'"hostile/{file}"' for file in EVERY)
    recipe = f'[input]\npaths = [{paths}]\n[output]\npath = "{name}"\n[annotators.{name}]\n{(TEXT | URL)[name]}\n'
    Path(f"{name}.toml").write_text(recipe + (TOKENIZER if name == "pooled" else ""))
    called = colophon("annotate", f"{name}.toml", "--executor", "inline")
    assert (called.code, called.err) == (3, "")
    assert "Traceback" not in called.out

    found = manifest(name)
    source = {partition.name: partition.source.removeprefix("hostile/") for partition in found.partitions}
    tables: dict[str, list[pa.Table]] = {}
    for record in found.outputs[f"annotations/{name}"].records:
        tables.setdefault(source[record.partition], []).append(pq.read_table(Path(name, record.path)))
    annotated = {file: sum(map(len, parts)) for file, parts in tables.items()}
    entries = {Path(entry.source).relative_to("hostile").as_posix(): entry for entry in quarantine(name)}
    assert {*annotated, *entries} == {*EVERY} - {file for file, rows in ROWS.items() if not rows}
    assert {*annotated} & {*entries} == {"bad_lines.jsonl"}
    assert annotated.items() >= {file: rows for file, rows in ROWS.items() if file in annotated}.items()
    assert all("\n" not in entry.reason for entry in entries.values())
    assert {*entries} & {*SOUND, "invalid_utf8.parquet"} == set()
    assert "missing_text.parquet" in entries  # a document is a text, also for annotators of URLs
    assert ("missing_url.parquet" in entries) == (name in URL)

    texts = pq.read_table("hostile/nulls.parquet", columns=["text" if name in TEXT else "url"]).column(0)
    rows = pa.concat_tables(tables["nulls.parquet"]).drop_columns("id")
    empty = rows.filter(texts.is_null())
    assert empty.num_rows > 0
    assert {value for row in empty.to_pylist() for value in row.values()} == {None}
