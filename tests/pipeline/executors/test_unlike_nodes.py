"""A real cluster whose second node sees other disks, or has another Colophon, than the driver and the first node."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from colophon.shards.manifest import read_manifest
from tests.annotators.plugins import plugin_source
from tests.pipeline.executors.nodes import ROOT, Cluster, two_nodes
from tests.pipeline.small_run import write_small_run

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]
MOUNT = 'mount -t tmpfs none "$1" && shift && exec "$@"'
NODE = "127.0.0.3"


@dataclass(frozen=True)
class Unlike:
    """The cluster and the places in which its second node differs."""

    cluster: Cluster
    private: Path
    """A directory in which each node has files of its own."""
    code: Path
    """A directory in which the second node looks for Colophon first."""


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unlike]:
    root = tmp_path_factory.mktemp("unlike")
    private, code = root / "private", root / "code"
    private.mkdir()
    code.mkdir()
    separate = ["unshare", "--mount", "sh", "-c", MOUNT, "sh", str(private)]
    tried = subprocess.run([*separate, "true"], capture_output=True, check=False) if shutil.which("unshare") else None
    if tried is None or tried.returncode:
        pytest.skip("this process may not mount file systems")
    with two_nodes(second_prefix=separate, of_second={"PYTHONPATH": f"{code}:{ROOT}"}) as cluster:
        yield Unlike(cluster, private, code)


def run(
    cluster: Cluster, root: Path, *settings: str, recipe: Path | None = None, flags: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """`colophon run` on the cluster, in a project of its own; its relative output is the working directory's."""
    recipe = recipe or write_small_run(root)
    options = [*flags]
    options += [word for setting in ("output.path=out", *settings) for word in ("--set", setting)]
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-m", "colophon", "run", str(recipe), *options]
    return subprocess.run(command, cwd=root, env=environment, text=True, capture_output=True, check=False, timeout=300)


def assert_complete(done: subprocess.CompletedProcess[str], root: Path) -> None:
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    manifest = read_manifest(root / "out")
    assert {len(output.records) for output in manifest.outputs.values()} == {len(manifest.partitions)}
    assert list((root / "out").rglob("*.tmp")) == []


def test_both_nodes_work_in_a_relative_output_of_the_driver(unlike: Unlike, tmp_path: Path) -> None:
    done = run(unlike.cluster, tmp_path / "project")
    assert "left out" not in done.stdout
    assert (
        f"ray: connecting to {unlike.cluster.address}\nray: attached to {unlike.cluster.address}, 2 CPUs" in done.stdout
    )
    assert_complete(done, tmp_path / "project")


def test_an_output_that_each_node_has_for_itself_is_found_before_work(unlike: Unlike, tmp_path: Path) -> None:
    output = unlike.private / "out"
    done = run(unlike.cluster, tmp_path / "project", f"output.path={output}")
    assert done.returncode == 1
    assert done.stderr == (
        f"colophon: ray: node {NODE}: {output} is not the directory that the driver sees: "
        "set output.path to a directory that all nodes share, or to an object store\n"
    )
    assert not list(output.rglob("*.arrow"))


@pytest.mark.slow
def test_a_node_without_the_model_is_left_out(unlike: Unlike, tmp_path: Path, quality_model: Path) -> None:
    model = shutil.copy(quality_model, unlike.private / "q.bin")
    annotator = f'annotators.q={{type="fasttext",model="{model}",score={{argmax=true}}}}'
    done = run(unlike.cluster, tmp_path / "project", annotator)
    assert f"node {NODE} is left out: {model} is missing\n" in done.stdout
    assert_complete(done, tmp_path / "project")


@pytest.mark.slow
def test_a_node_without_the_recipes_directory_gets_its_plugin(unlike: Unlike, tmp_path: Path) -> None:
    """The recipe and the annotator's file are in a directory that the second node sees empty."""
    recipe = write_small_run(tmp_path / "project")
    text = recipe.read_text() + '[plugins]\nfiles = ["mine.py"]\n[annotators.words]\n'
    (unlike.private / "recipe.toml").write_text(text)
    (unlike.private / "mine.py").write_text(plugin_source())
    done = run(unlike.cluster, tmp_path / "project", recipe=unlike.private / "recipe.toml", flags=["--plugins"])
    assert "left out" not in done.stdout
    assert_complete(done, tmp_path / "project")
    manifest = read_manifest(tmp_path / "project/out")
    assert manifest.outputs["annotations/words"].settings["annotator"]["type"] == "words"


def test_a_node_with_other_code_is_left_out(unlike: Unlike, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "colophon", unlike.code / "colophon", ignore=shutil.ignore_patterns("__pycache__"))
    module = unlike.code / "colophon/shards/layouts.py"
    module.write_text(module.read_text() + "# a change\n")
    done = run(unlike.cluster, tmp_path / "project")
    shutil.rmtree(unlike.code / "colophon")
    assert f"node {NODE} is left out: its modules of Colophon " in done.stdout
    assert_complete(done, tmp_path / "project")
