"""`submit` refuses, before anything is sent, files that a job would not find and an output that would be lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.loading import load_recipe
from colophon.pipeline.runs.upload import MAX_UPLOAD_BYTES, plan_upload
from tests.pipeline.project import Called, colophon

OUTPUT = "output.path=/shared/out"
NOWHERE = "http://127.0.0.1:1"


def submit(*settings: str) -> Called:
    options = [word for setting in settings for word in ("--set", setting)]
    return colophon("submit", "recipe.toml", "--address", NOWHERE, "--no-install", *options)


def test_a_relative_output_is_refused(project: Path) -> None:
    called = submit()
    assert called.code == 2
    assert called.line == (
        "submit: recipe.toml: output.path out is relative: it would be lost with the job's directory. "
        "Set an absolute path that all nodes share, or an object store"
    )


def test_files_of_the_working_directory_are_uploaded(project: Path) -> None:
    for output in (OUTPUT, "output.path=s3://bucket/out", "output.path=file:///shared/out", "output.path=~/out"):
        assert submit(output).line.startswith(f"submit: no Ray job server at {NOWHERE}: "), "the next thing it needs"


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("input.paths=../data/*.parquet", "input.paths: ../data/*.parquet is outside the working directory {}"),
        ("input.paths=none/*.jsonl", "input.paths: none/*.jsonl is not in the working directory {}"),
        ("input.paths=links/*.jsonl", "input.paths: links/passwd.jsonl is outside the working directory {}"),
        ("input.paths=links/etc", "input.paths: links/etc/x.jsonl is outside the working directory {}"),
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
    Path("../data").mkdir(exist_ok=True)
    Path("../data/x.parquet").touch()
    Path("links").mkdir()
    Path("links/passwd.jsonl").symlink_to("/etc/passwd")
    Path("links/etc").symlink_to(outside.resolve())
    called = submit(OUTPUT, setting)
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
    settings = ["output.path=/shared/out", "tokenizer.path=models/same.tiktoken"]
    upload = plan_upload(
        load_recipe("recipe.toml", overrides=settings),
        where="recipe.toml",
        recipe_file=Path("recipe.toml"),
        working_dir=Path(),
    )
    expected = ["recipe.toml", "models/same.tiktoken", "models/same.tiktoken.json"]
    expected += [f"data/part-{number}.parquet" for number in range(3)]
    assert list(upload.files) == expected
    assert upload.code == {}
    upload.copy_to(tmp_path / "copies")
    assert sorted(
        str(p.relative_to(tmp_path / "copies")) for p in (tmp_path / "copies").rglob("*") if p.is_file()
    ) == sorted(expected)
    assert not (tmp_path / "copies/models/same.tiktoken").is_symlink()


def test_the_files_are_listed_before_anything_is_sent(project: Path) -> None:
    options = ("--no-install", "--dry-run", "--set", OUTPUT)
    called = colophon("submit", "recipe.toml", "--address", "http://127.0.0.1:1", *options)
    assert (called.code, called.err) == (0, "")
    lines = called.out.splitlines()
    assert lines[0].startswith("upload: 5 files, 0.")
    assert [line.split()[0] for line in lines[1:]] == [
        *("recipe.toml", "small.tiktoken", "data/part-0.parquet", "data/part-1.parquet", "data/part-2.parquet"),
    ]
    assert "small.tiktoken" in submit(OUTPUT).out


def test_a_checkout_uploads_the_modules_and_no_link_out_of_it(project: Path) -> None:
    (project / "colophon/pipeline").mkdir(parents=True)
    for name in (
        "__init__.py",
        "pipeline/__init__.py",
        "pipeline/.env",
        "pipeline/notes.txt",
        "pipeline/__pycache__/x.py",
    ):
        (project / "colophon" / name).parent.mkdir(exist_ok=True)
        (project / "colophon" / name).touch()
    Path("shards").mkdir()
    Path("shards/reader.py").touch()
    Path("colophon/shards").symlink_to("../shards")
    recipe = load_recipe("recipe.toml", overrides=["output.path=/shared/out"])
    upload = plan_upload(recipe, where="recipe.toml", recipe_file=None, working_dir=Path())
    assert list(upload.code) == [
        f"colophon/{name}" for name in ("__init__.py", "pipeline/__init__.py", "shards/reader.py")
    ]
    Path("colophon/trainer").symlink_to("/etc")
    with pytest.raises(UsageError, match="colophon: colophon/trainer is outside the working directory"):
        plan_upload(recipe, where="recipe.toml", recipe_file=None, working_dir=Path())


def test_an_upload_that_is_too_large_for_ray_is_refused(project: Path) -> None:
    with Path("data/part-9.parquet").open("wb") as file:
        file.truncate(MAX_UPLOAD_BYTES)
    called = submit(OUTPUT, "input.paths=data", "input.format=parquet")
    assert called.code == 2
    assert "the upload has 524 MB, Ray takes 524 MB. Put data/part-9.parquet at an absolute path" in called.line
