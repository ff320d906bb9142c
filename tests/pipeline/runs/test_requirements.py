"""The files that every node of a cluster must have, by stage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.requirements import requirements
from colophon.shards.common.digests import file_sha256
from colophon.shards.outputs import StageName
from tests.pipeline.project import resolved_recipe, write_documents


@pytest.mark.parametrize(
    ("stages", "files", "inputs"),
    [
        (["annotate", "tokenize", "pack"], ["quality.bin", "small.tiktoken", "small.tiktoken.json"], True),
        (["annotate"], ["quality.bin"], True),
        (["tokenize"], ["small.tiktoken", "small.tiktoken.json"], True),
        (["pack"], ["small.tiktoken", "small.tiktoken.json"], False),
    ],
)
def test_stages_require_what_they_read(
    project: Path, quality_model: Path, stages: list[StageName], files: list[str], inputs: bool
) -> None:
    shutil.copy(quality_model, "quality.bin")
    Path("small.tiktoken.json").write_text('{"pattern": "gpt2"}')
    write_documents(Path("data2/more.parquet"), range(1000, 1010))
    resolved = resolved_recipe(
        'annotators.q={type="fasttext",model="quality.bin",score={argmax=true}}', 'input.paths=["data","data2"]'
    )
    found = requirements(Plan(resolved), stages, directories=["/exported"])
    assert [file.path for file in found.files] == [str(project / file) for file in files]
    assert all((f.bytes, f.sha256) == (Path(f.path).stat().st_size, file_sha256(Path(f.path))) for f in found.files)
    assert {Path(path).parent for path in found.inputs} == ({project / "data", project / "data2"} if inputs else set())
    assert found.directories == (str(project / "out"), "/exported")
    assert found.modules == ()


def test_an_output_on_an_object_store_is_not_probed(project: Path) -> None:
    assert requirements(Plan(resolved_recipe("output.path=memory://x/out")), ["pack"]).directories == ()
