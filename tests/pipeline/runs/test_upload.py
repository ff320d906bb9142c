"""`submit` refuses, before anything is sent, files that a job would not find and an output that would be lost."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import colophon as package
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.submit import installed_requirements
from colophon.pipeline.runs.upload import MAX_UPLOAD_BYTES, plan_upload
from tests.pipeline.project import Called, colophon

INPUT = "input.paths=/shared/data/*.parquet"
OUTPUT = "output.path=/shared/out"
NOWHERE = "http://127.0.0.1:1"


def submit(*settings: str) -> Called:
    options = [word for setting in settings for word in ("--set", setting)]
    return colophon("submit", "recipe.toml", "--address", NOWHERE, "--no-install", *options)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ((INPUT,), "output.path out is relative: it would be lost with the job's directory"),
        ((OUTPUT,), "input.paths data/*.parquet is relative: input is not uploaded"),
        (
            (OUTPUT, 'input.paths=["s3://bucket/x.parquet", "y.parquet"]'),
            "input.paths y.parquet is relative: input is not",
        ),
    ],
)
def test_relative_input_and_output_are_refused(project: Path, settings: tuple[str, ...], place: str) -> None:
    called = submit(*settings)
    assert called.code == 2
    assert called.line.startswith(f"submit: recipe.toml: {place}")
    assert called.line.endswith(". Set an absolute path that all nodes share, or an object store")


def test_files_of_the_working_directory_are_uploaded(project: Path) -> None:
    for output in (OUTPUT, "output.path=s3://bucket/out", "output.path=file:///shared/out", "output.path=~/out"):
        assert submit(INPUT, output).line.startswith(f"submit: no Ray job server at {NOWHERE}: "), (
            "the next thing it needs"
        )


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("tokenizer.path=../outside/x.jsonl", "tokenizer.path: ../outside/x.jsonl is outside the working directory {}"),
        ("tokenizer.path=links/etc/x.jsonl", "tokenizer.path: links/etc/x.jsonl is outside the working directory {}"),
        ("tokenizer.path=links/passwd.jsonl", "tokenizer.path: links/passwd.jsonl is outside the working directory {}"),
        ("tokenizer.path=data", "tokenizer.path: data is not a regular file"),
        (
            'annotators.q={type="fasttext",model="q.bin",score={argmax=true}}',
            "annotators.q: q.bin is not in the working directory {}",
        ),
    ],
)
def test_a_relative_file_that_cannot_be_uploaded_is_refused(project: Path, setting: str, reason: str) -> None:
    outside = Path("../outside")
    outside.mkdir(exist_ok=True)
    (outside / "x.jsonl").touch()
    Path("links").mkdir()
    Path("links/passwd.jsonl").symlink_to("/etc/passwd")
    Path("links/etc").symlink_to(outside.resolve())
    called = submit(INPUT, OUTPUT, setting)
    assert called.code == 2
    assert called.line == (
        f"submit: recipe.toml: {reason.format(project)}, and would be missing on the cluster. "
        "Set an absolute path that all nodes share, or put it into the working directory"
    )


def test_only_what_the_recipe_names_is_uploaded(project: Path, tmp_path: Path) -> None:
    """The directory as people have it: keys, histories, outputs, links, other data."""
    private = (".env", ".netrc", "id_rsa", ".aws/credentials", ".git/config", "sub/.env", "out/manifest.json", "a.pem")
    private += ("data/.hidden.parquet", "data/notes.txt", "models/other.bin", "wandb/x", "venv/x.py", "other.toml")
    for name in private:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("secret")
    Path("link-to-etc").symlink_to("/etc/ssl")
    Path("small.tiktoken").rename("models/small.tiktoken")
    Path("models/same.tiktoken").symlink_to("small.tiktoken")
    Path("models/same.tiktoken.json").write_text("{}")
    Path(".gitignore").write_text("models/\n")
    settings = [INPUT, OUTPUT, "tokenizer.path=models/same.tiktoken"]
    upload = plan_upload(
        load_recipe("recipe.toml", overrides=settings),
        where="recipe.toml",
        recipe_file=Path("recipe.toml"),
        working_dir=Path(),
    )
    expected = ["recipe.toml", "models/same.tiktoken", "models/same.tiktoken.json"]
    assert list(upload.files) == expected
    upload.copy_to(tmp_path / "copies")
    copied = [path.relative_to(tmp_path / "copies") for path in (tmp_path / "copies").rglob("*") if path.is_file()]
    assert sorted(str(path) for path in copied if path.parts[0] != "colophon") == sorted(expected)
    assert not (tmp_path / "copies/models/same.tiktoken").is_symlink()


def test_a_dry_run_lists_the_files_and_sends_nothing(project: Path) -> None:
    options = ("--no-install", "--dry-run", "--set", INPUT, "--set", OUTPUT)
    called = colophon("submit", "recipe.toml", "--address", "127.0.0.1:1", *options)
    assert (called.code, called.err) == (0, "")
    assert re.fullmatch(r"upload: \d+\.\d MB: \d{3} files of Colophon \S+ and", called.out.splitlines()[0])
    assert [line.split()[0] for line in called.out.splitlines()[1:]] == ["recipe.toml", "small.tiktoken"]
    assert submit(INPUT, OUTPUT).out == ""  # no server answers, and a list of what is not sent would mislead
    wrong = colophon("submit", "recipe.toml", "--address", "head", *options)
    assert (wrong.code, wrong.line) == (2, "submit: --address head: must be http://HOST:8265")


def test_tables_that_a_job_writes_are_not_uploaded_and_not_lost(project: Path) -> None:
    table = "annotators.duplicates={{path='{}'}}"
    options = ("--no-install", "--dry-run", "--command", "duplicates", "--set", INPUT, "--set", OUTPUT)
    command = ("submit", "recipe.toml", "--address", "127.0.0.1:1", *options, "--set")
    called = colophon(*command, table.format(project / "table.parquet"))
    assert (called.code, called.err) == (0, "")
    assert [line.split()[0] for line in called.out.splitlines()[1:]] == ["recipe.toml", "small.tiktoken"]
    called = colophon(*command, table.format("table.parquet"))
    lost = "annotators.duplicates.path table.parquet is relative: the table would be lost with the job's directory. "
    remedy = "Set an absolute path that all nodes share"
    assert (called.code, called.line) == (2, f"submit: recipe.toml: {lost}{remedy}")


def test_the_code_is_that_of_the_running_command(project: Path, tmp_path: Path) -> None:
    """Whatever the working directory has; nothing but code of a checkout is in it."""
    Path("colophon/pipeline").mkdir(parents=True)
    Path("colophon/pipeline/__init__.py").write_text("raise SystemExit")
    recipe = load_recipe("recipe.toml", overrides=[INPUT, OUTPUT])
    upload = plan_upload(recipe, where="recipe.toml", recipe_file=None, working_dir=Path())
    upload.copy_to(tmp_path)
    code = "import colophon.pipeline.cli, colophon.trainer.config, colophon as c; print(c.__file__, c.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert done.stdout == f"{tmp_path}/colophon/__init__.py {package.__version__}\n"
    assert {path.suffix for path in upload.code.values()} == {".py", ".toml", ".css", ".js", ".typed"}
    assert (tmp_path / "colophon/pipeline/reports/page").glob("*.css")
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_pip_gets_the_versions_that_are_installed_here() -> None:
    lines = list(installed_requirements())
    assert f"pyarrow=={version('pyarrow')}" in lines
    assert f"llvmlite=={version('llvmlite')}" in lines, "of numba"
    names = [line.partition("==")[0] for line in lines]
    assert len(names) == len(set(names))
    assert {"ray", "torch", "colophon", "pytest", "duckdb"}.isdisjoint(names)


def test_an_upload_that_is_too_large_for_ray_is_refused(project: Path) -> None:
    with Path("large.bin").open("wb") as file:
        file.truncate(MAX_UPLOAD_BYTES)
    called = submit(INPUT, OUTPUT, 'annotators.q={type="fasttext",model="large.bin",score={argmax=true}}')
    assert called.code == 2
    assert re.search(
        r"the upload has 10[0-9] MB, Ray's job server takes 100 MB. Put large.bin at an absolute path", called.line
    )
