"""Faults in real processes, at every step of a commit: what is run again ends with the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pytest

from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.fault_injection import VARIABLE
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.errors import ExitCode
from tests.pipeline.commit_records import committed_record, committed_records, edit_records
from tests.pipeline.executors.kinds import EXECUTORS, SLOW_ON_RAY
from tests.pipeline.executors.nodes import ROOT, two_nodes
from tests.pipeline.project import (
    ROWS_OF_FILES,
    colophon,
    data_files,
    hashes,
    manifest,
    quarantine,
    redone,
    run,
    snapshot,
    write_documents,
)

LIMIT_SECONDS = 300
INLINE = ("--executor", "inline")
TWO_WORKERS = ("--set", "ray.num_workers=2")


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where a fault counts how often its step was reached; nothing else is in there."""
    directory = tmp_path / "marks"
    directory.mkdir()
    return directory


@pytest.fixture
def expected(templates: Path) -> dict[tuple[str, str], str]:
    """sha256 of every file of an undisturbed run."""
    return hashes(manifest(str(templates / "finished" / "out")))


def fault(marks: Path, step: str, action: str, **more: Any) -> dict[str, str]:
    """The environment of a process that shall meet a fault."""
    return {VARIABLE: json.dumps({"step": step, "action": action, "directory": str(marks), **more})}


def start(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own, in the project that is the working directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "colophon", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
    return process.returncode, out, err


def call(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> tuple[int, str, str]:
    return ended(start(*arguments, env=env, **options))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until the condition holds; fails when the process ends before."""
    deadline, pause = time.monotonic() + LIMIT_SECONDS, threading.Event()
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        pause.wait(0.02)


def committed() -> dict[str, tuple[int, int]]:
    """Inode and time of every file that has a record."""
    states = snapshot(Path("out"))
    return {path: states[path] for path in (f"out/{record.path}" for record in committed_records())}


def assert_whole(expected: dict[tuple[str, str], str], *, before: dict[str, tuple[int, int]] | None = None) -> None:
    """The run is as an undisturbed one, nothing else lies there, and what was committed before was not made again."""
    assert hashes(manifest()) == expected
    assert list(Path("out").rglob("*.tmp")) == []
    recorded = {Path("out", record.path) for stage in manifest().outputs.values() for record in stage.records}
    assert data_files(Path("out")) == recorded
    assert redone(before or {}, snapshot(Path("out"))).isdisjoint(before or {})
    called = colophon("verify", "recipe.toml")
    assert (called.code, called.err) == (0, "")
    assert "all match their records, all laws of the layouts hold" in called.out


STEPS = [
    ("before write", "tokens", 3),
    ("mid-write", "annotate", 4),
    ("mid-write", "packed", 2),
    ("before rename", "annotations/url", 2),
    ("before rename", "packed/plain", 3),
    ("before record", "annotations/edu_score", 1),
    ("before record", "tokens", 4),
    ("before record", "packed/append-quality", 5),
    ("before segment", "", 1),
    ("before segment", "", 2),
    ("before removal", "", 1),
    ("before removal", "", 2),
    ("before manifest", "", 1),
]


@pytest.mark.parametrize("where", STEPS, ids=lambda where: f"{where[0]}, {where[1]}")
def test_a_process_killed_at_a_step_loses_nothing(
    project: Path, marks: Path, expected: dict[tuple[str, str], str], where: tuple[str, str, int]
) -> None:
    step, stage, at = where
    code, _, _ = call("run", "recipe.toml", *INLINE, env=fault(marks, step, "kill", stage=stage, at=at))
    assert code == -signal.SIGKILL
    assert not Path("out/manifest.json").exists()
    before = committed()
    assert run().code == 0
    assert_whole(expected, before=before)


KILLED_BEFORE_A_RENAME = """
import os, signal
from pathlib import Path
from colophon.pipeline import cli
replace = Path.replace
def killed(path, target):
    if os.environ["PLACE"] in str(path):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)
Path.replace = killed
cli.main()
"""


@pytest.mark.parametrize(
    "place", ["out/records/pending/.part-1", "out/records/.segment-", "out/.manifest.json", "out/report/."]
)
def test_a_small_file_that_a_killed_process_left_is_swept(
    project: Path, expected: dict[tuple[str, str], str], place: str
) -> None:
    """The process is killed before it renames the temporary file of a record, a segment, the manifest or a report."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PLACE": place}
    command = [sys.executable, "-c", KILLED_BEFORE_A_RENAME, "run", "recipe.toml", *INLINE]
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert [path for path in Path("out").rglob("*.tmp") if place in str(path)] != []
    before = committed()
    assert run().code == 0
    assert_whole(expected, before=before)


@pytest.mark.parametrize("step", ["before rename", "before record"])
def test_killed_while_it_makes_a_file_anew(
    finished: Path, marks: Path, expected: dict[tuple[str, str], str], step: str
) -> None:
    """The record of the old file must not vouch for the new one, nor be there without it."""
    edit_records(lambda r: r["output"] == "tokens" and r.update(fingerprint=f"0{r['fingerprint']}"))
    faulty = fault(marks, step, "kill", stage="tokens", at=2)
    assert call("run", "recipe.toml", *INLINE, env=faulty)[0] == -signal.SIGKILL
    before = {path: state for path, state in committed().items() if path.startswith("out/annotations")}
    assert run().code == 0
    assert_whole(expected, before=before)


@pytest.mark.parametrize("step", ["before rename", "before record"])
def test_killed_while_it_rebuilds_and_the_recipe_is_changed_back(
    finished: Path, marks: Path, expected: dict[tuple[str, str], str], step: str
) -> None:
    """A segment has the record of the old file, which must not vouch for the new one."""
    faulty = fault(marks, step, "kill", stage="packed", at=14)
    changed = ("--set", "layouts.prepend-url.dropout=0.5", "--set", "pack.seed=3", "--rebuild")
    assert call("run", "recipe.toml", *INLINE, *changed, env=faulty)[0] == -signal.SIGKILL
    assert run("--rebuild").code == 0
    assert_whole(expected)


@pytest.fixture(params=EXECUTORS)
def on_two_workers(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Options of `colophon run` for two workers of each kind."""
    return ("--executor", request.param, *TWO_WORKERS)


def test_workers_killed_mid_run_are_replaced(
    project: Path, marks: Path, expected: dict[tuple[str, str], str], on_two_workers: tuple[str, ...]
) -> None:
    """Two of them, in the middle of a commit; nobody has to run anything again."""
    faulty = fault(marks, "before record", "kill", at=3, times=2)
    code, _, err = call("run", "recipe.toml", *on_two_workers, env=faulty)
    assert (code, err) == (0, "")
    assert_whole(expected)


@pytest.mark.parametrize("on_two_workers", SLOW_ON_RAY, indirect=True)
def test_a_worker_that_hangs_is_replaced(
    project: Path, marks: Path, expected: dict[tuple[str, str], str], on_two_workers: tuple[str, ...]
) -> None:
    faulty = fault(marks, "mid-write", "hang", at=2)
    settings = (*on_two_workers, "--set", "ray.partition_timeout_seconds=8")
    code, _, err = call("run", "recipe.toml", *settings, env=faulty)
    assert (code, err) == (0, "")
    assert_whole(expected)


@pytest.mark.parametrize("on_two_workers", SLOW_ON_RAY, indirect=True)
def test_a_worker_that_grows_past_its_memory_is_replaced(
    project: Path, marks: Path, expected: dict[tuple[str, str], str], on_two_workers: tuple[str, ...]
) -> None:
    faulty = fault(marks, "mid-write", "grow", at=2)
    settings = (*on_two_workers, "--set", "ray.worker_memory_bytes=300000000")
    code, _, err = call("run", "recipe.toml", *settings, env=faulty)
    assert (code, err) == (0, "")
    assert_whole(expected)


@pytest.fixture
def hanging(project: Path, marks: Path, on_two_workers: tuple[str, ...]) -> Iterator[subprocess.Popen[str]]:
    """A run of which a worker hangs before the record of a partition; each has four files in the first pass."""
    faulty = fault(marks, "before record", "hang", at=13)
    process = start("run", "recipe.toml", *on_two_workers, env=faulty, start_new_session=True)
    children: list[psutil.Process] = []
    try:
        wait_for((marks / "13").exists, process)
        children = psutil.Process(process.pid).children(recursive=True)
        yield process
    finally:
        process.kill()
        process.communicate()
        _, alive = psutil.wait_procs(children, timeout=30)
        for child in alive:
            child.kill()


def test_the_driver_killed(
    hanging: subprocess.Popen[str], expected: dict[tuple[str, str], str], on_two_workers: tuple[str, ...]
) -> None:
    children = psutil.Process(hanging.pid).children(recursive=True)
    assert len(children) >= 4, "of Ray: gcs_server, raylet, workers; else: resource tracker, fork server, workers"
    assert ({"raylet", "gcs_server"} <= {child.name() for child in children}) == ("ray" in on_two_workers)
    # Ray's agents end too, but first they try for a minute to report it to the server, which has ended as well.
    agents = [child for child in children if child.name().startswith(("ray::DashboardAg", "ray::RuntimeEnv"))]
    hanging.kill()
    _, alive = psutil.wait_procs([child for child in children if child not in agents], timeout=LIMIT_SECONDS)
    assert alive == [], "all processes end with the command that started them"
    for agent in agents:
        agent.kill()
    before = committed()
    assert len(before) >= 3
    code, _, err = call("run", "recipe.toml", *on_two_workers)
    assert (code, err) == (0, "")
    assert_whole(expected, before=before)


@pytest.mark.parametrize("on_two_workers", SLOW_ON_RAY, indirect=True)
def test_ctrl_c_ends_a_run_with_one_line(hanging: subprocess.Popen[str]) -> None:
    """The terminal sends SIGINT to all processes of the command."""
    children = psutil.Process(hanging.pid).children(recursive=True)
    os.killpg(hanging.pid, signal.SIGINT)
    code, _, err = ended(hanging)
    assert code == ExitCode.INTERRUPTED
    lines = [line for line in err.splitlines() if line]
    assert lines == ["colophon: interrupted; run the same command again to resume"]
    _, alive = psutil.wait_procs(children, timeout=LIMIT_SECONDS)
    assert alive == []


def test_ctrl_c_while_the_fork_server_imports_is_one_line(project: Path) -> None:
    process = start("run", "recipe.toml", "--executor", "local", start_new_session=True)
    try:
        driver = psutil.Process(process.pid)
        wait_for(lambda: len(driver.children()) == 2, process)  # the resource tracker and the fork server
        children = driver.children()
        os.killpg(process.pid, signal.SIGINT)
    finally:
        code, _, err = ended(process)
    assert err.splitlines() == ["colophon: interrupted; run the same command again to resume"]
    # An interrupt in a text that is executed, as of each dataclass that an import makes, ends Python by the signal,
    # also where it was caught. A shell shows 130 for both.
    assert code in (ExitCode.INTERRUPTED, -signal.SIGINT)
    assert psutil.wait_procs(children, timeout=LIMIT_SECONDS)[1] == []


@pytest.mark.parametrize("on_two_workers", SLOW_ON_RAY[1:], indirect=True)
def test_the_raylet_killed(hanging: subprocess.Popen[str], expected: dict[tuple[str, str], str]) -> None:
    (raylet,) = [c for c in psutil.Process(hanging.pid).children(recursive=True) if c.name() == "raylet"]
    raylet.kill()
    code, _, _ = ended(hanging)
    assert code != 0
    before = committed()
    assert run().code == 0
    assert_whole(expected, before=before)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_node_removed_mid_run(project: Path, marks: Path, expected: dict[tuple[str, str], str]) -> None:
    """Its worker hangs in the middle of a commit when the node goes; the other node does what is left."""
    with two_nodes(of_second=fault(marks, "before record", "hang", at=3)) as cluster:
        output = f"output.path={Path('out').absolute()}"
        attached = {**cluster.environment, "RAY_ADDRESS": cluster.address}
        process = start("run", str(Path("recipe.toml").absolute()), "--set", output, env=attached)
        try:
            wait_for((marks / "3").exists, process)
            cluster.remove_second()
        finally:
            code, _, err = ended(process)
    assert (code, err) == (0, "")
    assert_whole(expected)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_node_that_joins_mid_run_is_used(project: Path, marks: Path, expected: dict[tuple[str, str], str]) -> None:
    """The only worker hangs while it writes; then a second node joins and works on everything else."""
    others = sum(stage == "tokens" for stage, _ in expected) - 2  # two partitions are the first worker's
    with two_nodes(of_head=fault(marks, "mid-write", "hang", stage="annotate"), second_later=True) as cluster:
        output = f"output.path={Path('out').absolute()}"
        attached = {**cluster.environment, "RAY_ADDRESS": cluster.address}
        process = start("run", str(Path("recipe.toml").absolute()), "--set", output, env=attached)
        try:
            wait_for((marks / "1").exists, process)
            cluster.add_second()
            wait_for(lambda: len(list(Path("out/tokens").glob("[!.]*.arrow"))) >= others, process)
            (marks / "go").touch()
        finally:
            code, out, err = ended(process)
    assert f"ray: attached to {cluster.address}, 1 CPUs" in out
    assert (code, err) == (0, "")
    assert_whole(expected)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_node_where_no_worker_starts_is_avoided(
    project: Path, tmp_path: Path, expected: dict[tuple[str, str], str]
) -> None:
    """Colophon cannot be imported there, as if nobody had installed it; the other node does the work."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/sitecustomize.py").write_text("import sys\nsys.modules['colophon'] = None\n")
    with two_nodes(of_second={"PYTHONPATH": f"{tmp_path / 'broken'}{os.pathsep}{ROOT}"}) as cluster:
        output = f"output.path={Path('out').absolute()}"
        attached = {**cluster.environment, "RAY_ADDRESS": cluster.address}
        options = ("--set", output, "--set", "ray.max_attempts=2")
        code, _, err = call("run", str(Path("recipe.toml").absolute()), *options, env=attached)
    assert (code, err) == (0, "")
    assert_whole(expected)


def test_a_disk_that_is_full_ends_the_run_with_one_line(
    project: Path, marks: Path, expected: dict[tuple[str, str], str]
) -> None:
    faulty = fault(marks, "before rename", "disk full", stage="tokens", at=2)
    code, _, err = call("run", "recipe.toml", *INLINE, env=faulty)
    assert code == ExitCode.FAILED
    (line,) = err.splitlines()
    assert line.startswith(f"colophon: {Path('out').absolute()}/tokens/part-")
    assert line.endswith(".arrow: No space left on device. Committed files stay; run the same command again to resume")
    before = committed()
    assert run().code == 0
    assert_whole(expected, before=before)


def test_a_file_that_cannot_grow_ends_the_run_with_one_line(
    project: Path, expected: dict[tuple[str, str], str]
) -> None:
    """A limit on the size of files stands in for a full disk: writing fails in the middle."""

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))

    code, _, err = call("run", "recipe.toml", *INLINE, preexec_fn=no_large_files)
    assert code == ExitCode.FAILED
    (line,) = err.splitlines()
    assert line.startswith(f"colophon: {Path('out').absolute()}/")
    assert line.endswith(": File too large. Committed files stay; run the same command again to resume")
    assert not Path("out/manifest.json").exists()
    before = committed()
    assert run().code == 0
    assert_whole(expected, before=before)


def test_an_output_that_cannot_be_written_is_one_line(project: Path) -> None:
    called = run("--set", "output.path=/proc/colophon")
    assert called.code == ExitCode.FAILED
    assert called.line.startswith("/proc/colophon: cannot be written: ")
    Path("held").mkdir()
    Path("held/out").mkdir(mode=0o500)
    if os.geteuid() != 0:  # root may write everywhere
        called = run("--set", "output.path=held/out")
        assert called.code == ExitCode.FAILED
        assert called.line == "held/out: cannot be written: Permission denied"


def _change(path: Path) -> None:
    write_documents(path, range(500, 500 + ROWS_OF_FILES[2]))


@pytest.mark.parametrize(("change", "reason"), [(_change, "was changed during the run"), (Path.unlink, "No such file")])
def test_an_input_file_changed_or_removed_during_the_run(
    project: Path, marks: Path, expected: dict[tuple[str, str], str], change: Callable[[Path], None], reason: str
) -> None:
    kept, last = Path("kept.parquet"), Path("data/part-2.parquet")
    shutil.copy2(last, kept)
    process = start("run", "recipe.toml", *INLINE, env=fault(marks, "before record", "hang", stage="tokens", at=2))
    try:
        wait_for((marks / "2").exists, process)
        change(last)
        (marks / "go").touch()
    finally:
        code, _, err = ended(process)
    assert (code, err) == (ExitCode.QUARANTINED, "")
    left_out = quarantine()
    assert {entry.source for entry in left_out} == {str(last)}
    assert all(reason in entry.reason for entry in left_out)
    made = manifest()
    assert sum(p.rows or 0 for p in made.partitions) + sum(e.rows or 0 for e in left_out) == sum(ROWS_OF_FILES)
    assert {key: sha for key, sha in expected.items() if not key[1].startswith("part-2")} == hashes(made)
    shutil.copy2(kept, last)
    assert run().code == 0
    assert_whole(expected)
    assert not quarantine()


def _publish(root: str, number: int, times: int) -> None:
    store = Store(root)
    for turn in range(times):
        with store.draft(output="tokens", partition="p", suffix=".parquet") as draft:
            draft.path.write_text(f"{number}.{turn}." * 50)
            store.publish([draft.finish(check=lambda path: None, rows=1, fingerprint=str(number), counts={})])


def test_of_two_attempts_at_a_partition_one_wins_whole(tmp_path: Path) -> None:
    """The file and its record are the same attempt's, however the attempts meet."""
    context = get_context("spawn")
    attempts = [context.Process(target=_publish, args=(str(tmp_path), number, 60)) for number in range(3)]
    for attempt in attempts:
        attempt.start()
    for attempt in attempts:
        attempt.join(LIMIT_SECONDS)
        assert attempt.exitcode == 0
    record = committed_record(str(tmp_path), "tokens", "p")
    assert record is not None
    assert file_sha256(tmp_path / record.path) == record.sha256
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == ["p.parquet"]
