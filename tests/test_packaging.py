"""The files of an installation in an environment; a user's own files of the same names do not matter."""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from colophon import __version__
from colophon.shards.manifest import read_manifest
from tests.installed import PACKAGES, Environment, build, copy_checkout, install
from tests.pipeline.executors.nodes import raylet
from tests.pipeline.small_run import write_small_run
from tests.ports import free_ports

# Where an import of a user's file instead of ours would be seen.
OWN_FILE = "raise SystemExit('a file of the working directory was imported')\n"
TRAIN = """
[train.tiny]
layout = "prepend-url"
model = "1m"
steps = 2
batch_size = 2
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("source") / "checkout")


@pytest.fixture(scope="module")
def environment(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel of the checkout, installed."""
    root = tmp_path_factory.mktemp("installed")
    return install(build(source, "wheel", root / "dist"), root / "environment")


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A working directory that has files and directories of all our packages' names, and a recipe."""
    write_small_run(tmp_path, num_files=1, num_documents=12)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(recipe.read_text() + TRAIN)
    for name in PACKAGES:
        (tmp_path / f"{name}.py").write_text(OWN_FILE)
    for name in ("shards", "recipes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(OWN_FILE)
    return tmp_path


def test_an_sdist_holds_files_in_the_place_of_links_and_builds_the_same_wheel(
    source: Path, environment: Environment, tmp_path: Path
) -> None:
    archive = build(source, "sdist", tmp_path / "dist")
    with tarfile.open(archive) as members:
        assert not [member.name for member in members if member.issym() or member.islnk()]
        members.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    from_sdist = install(build(unpacked, "wheel", tmp_path / "dist"), tmp_path / "environment")
    assert from_sdist.added == environment.added
    (packages,) = from_sdist.root.glob("lib/python*/site-packages")
    (expected,) = environment.root.glob("lib/python*/site-packages")
    assert files_of(packages / "colophon") == files_of(expected / "colophon")


def files_of(package: Path) -> dict[str, bytes]:
    return {
        path.relative_to(package).as_posix(): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_an_installation_adds_one_name(environment: Environment, source: Path) -> None:
    assert {name for name in environment.added if not name.endswith(".dist-info")} == {"colophon"}
    (packages,) = environment.root.glob("lib/python*/site-packages")
    installed = files_of(packages / "colophon")
    expected = {f"{name}/{file}" for name in PACKAGES for file in files_of(source / name)}
    assert {name for name in installed if "/" in name} == expected
    assert "py.typed" in installed


def test_nothing_is_importable_without_the_prefix(environment: Environment, tmp_path: Path) -> None:
    code = "import importlib.util, json; print(json.dumps([n for n in {names} if importlib.util.find_spec(n)]))"
    done = environment.call(environment.python, "-c", code.format(names=[*PACKAGES, "colophon"]), cwd=tmp_path)
    assert json.loads(done.stdout) == ["colophon"], done.stderr


COMMANDS = (
    ("recipes",),
    ("run", "recipe.toml", "--dry-run"),
    ("run", "recipe.toml"),
    ("annotate", "recipe.toml", "--executor", "inline"),
    ("tokenize", "recipe.toml", "--executor", "inline"),
    ("pack", "recipe.toml", "--executor", "inline"),
    ("status", "recipe.toml"),
    ("verify", "recipe.toml"),
    ("inspect", "recipe.toml", "--document", "0", "--layout", "prepend-url", "--sequence", "0"),
    ("export", "recipe.toml", "--to", "exported"),
    ("train", "recipe.toml"),
    ("evaluate", "recipe.toml", "--name", "tiny", "--documents", "2", "--output", "out"),
    ("generate", "recipe.toml", "--name", "tiny", "--max-tokens", "2"),
    ("export-model", "recipe.toml", "--name", "tiny", "--to", "model"),
    ("plot", "recipe.toml", "--to", "curves.png"),
    ("train-tokenizer", "--input", "data/*.parquet", "--vocabulary-size", "260", "--output", "own.tiktoken"),
)


def called(environment: Environment, workplace: Path, *commands: tuple[str, ...]) -> None:
    for arguments in commands:
        done = environment.call(environment.root / "bin" / "colophon", *arguments, cwd=workplace)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)


def test_a_run_and_a_training_work_beside_files_of_our_names(environment: Environment, workplace: Path) -> None:
    called(environment, workplace, ("run", "recipe.toml"), ("train", "recipe.toml"), ("verify", "recipe.toml"))


@pytest.mark.slow
def test_every_command_works_beside_files_of_our_names(environment: Environment, workplace: Path) -> None:
    called(environment, workplace, *COMMANDS)
    listed = environment.call(environment.root / "bin" / "colophon", "--help", cwd=workplace)
    assert listed.returncode == 0, listed.stderr
    for name in ("submit", "probe", "attention", "lm-eval", "train-classifier", "demo-corpus"):
        assert name in listed.stdout
        done = environment.call(environment.python, "-m", "colophon", name, "--help", cwd=workplace)
        assert done.returncode == 0, (name, done.stderr)


@pytest.mark.slow
def test_torchrun_trains_beside_files_of_our_names(environment: Environment, workplace: Path) -> None:
    python = environment.python
    made = environment.call(python, "-m", "colophon", "run", "recipe.toml", "--executor", "inline", cwd=workplace)
    assert made.returncode == 0, made.stderr
    torchrun = (python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = environment.call(*torchrun, "-m", "colophon", "train", "recipe.toml", cwd=workplace)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workplace / "out/training/tiny/metrics.jsonl").read_text().count('"step"') >= 2


@pytest.fixture(scope="module")
def jobs(environment: Environment) -> Iterator[str]:
    """The address of the job server of a cluster whose nodes have the wheel."""
    ray = environment.root / "bin" / "ray"
    ray.write_text(f"#!{environment.python}\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)
    server_port, gcs_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch:  # short: sockets
        options = ("--dashboard-host=127.0.0.1", f"--dashboard-port={server_port}", f"--temp-dir={scratch}")
        with raylet("127.0.0.4", "--head", f"--port={gcs_port}", *options, environment=environment.variables):
            yield f"http://127.0.0.1:{server_port}"


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.slow
@pytest.mark.parametrize("beside", ["a checkout", "a recipe alone"])
def test_a_ray_job_runs_the_code_that_submits_it(
    jobs: str, environment: Environment, source: Path, tmp_path: Path, beside: str
) -> None:
    recipe = write_small_run(tmp_path / "data", num_files=1, num_documents=12)
    if beside == "a checkout":
        working_dir = tmp_path / "checkout"
        shutil.copytree(source, working_dir, symlinks=True, ignore=shutil.ignore_patterns("build", "*.egg-info"))
        face = working_dir / "colophon" / "__init__.py"
        face.write_text(face.read_text().replace(f'"{__version__}"', '"0.1.0+other"'))
    else:
        working_dir = tmp_path / "upload"
        working_dir.mkdir()
    shutil.copy(recipe, working_dir)
    command = (environment.root / "bin" / "colophon", "submit", "recipe.toml", "--address", jobs, "--no-install")
    done = environment.call(*command, "--working-dir", working_dir, cwd=working_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_manifest(tmp_path / "data" / "out").colophon_version == __version__
