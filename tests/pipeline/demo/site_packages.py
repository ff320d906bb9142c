"""A small site-packages written by tests, and the rows of a corpus built from it."""

from __future__ import annotations

import hashlib
import random
import textwrap
from pathlib import Path

import pyarrow.parquet as pq

from colophon.pipeline.demo.corpus import DemoCorpus, write_demo_corpus

MATHS = "Topic :: Scientific/Engineering :: Mathematics"
WEB = "Topic :: Internet :: WWW/HTTP"
WORDS = """
the a document value reader writer returns keeps every single order that which because when then given longer
shorter window table column schema batch before after while between without result number of and or to from
"""


def prose(seed: str, *, num_sentences: int = 12) -> str:
    """Running sentences that differ with the seed."""
    source = random.Random(seed)
    sentences = [" ".join(source.choices(WORDS.split(), k=14)).capitalize() + "." for _ in range(num_sentences)]
    return textwrap.fill(" ".join(sentences), 76)


def module(seed: str) -> str:
    return f'"""{prose(seed)}"""\n\n\ndef run(a):\n    """{prose(seed + "run", num_sentences=3)}"""\n'


def parameters(seed: str) -> str:
    lines = "\n".join(f":param {seed}{number}: int >= {number}" for number in range(30))
    return f'def run(a):\n    """{lines}\n    """\n'


def install(
    root: Path,
    name: str,
    files: dict[str, str | bytes],
    *,
    version: str = "1.0",
    classifier: str | None = None,
    urls: tuple[str, ...] | None = None,
    description: str = "",
) -> Path:
    """Write a distribution as an installer does; `urls` are Project-URL values. Returns its dist-info folder."""
    info = root / f"{name}-{version}.dist-info"
    urls = (f"Documentation, https://{name}.example.org/docs/",) if urls is None else urls
    head = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Project-URL: {url}" for url in urls)]
    head += [f"Classifier: {classifier}"] if classifier else []
    everything = {f"{info.name}/METADATA": "\n".join(head) + f"\n\n{description}", **files}
    for path, content in everything.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in everything))
    return info


def build(site: Path, output: Path, *, num_files: int = 2, num_workers: int = 1) -> DemoCorpus:
    return write_demo_corpus(output, search_paths=[site], num_files=num_files, num_workers=num_workers)


def rows(corpus: DemoCorpus) -> list[dict[str, object]]:
    return [row for path in (*corpus.train_files, corpus.validation_file) for row in pq.read_table(path).to_pylist()]


def row_at(corpus: DemoCorpus, url: str) -> dict[str, object]:
    found = [row for row in rows(corpus) if row["url"] == url]
    assert len(found) == 1, [row["url"] for row in rows(corpus)]
    return found[0]


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
