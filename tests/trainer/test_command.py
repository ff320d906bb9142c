"""`colophon train`: several runs; after a signal a line, an exit code, and no later run."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import typer

from colophon.shards.common.errors import ExitCode
from tests.pipeline.project import RECIPE, Called, colophon, run, snapshot, write_project
from tests.pipeline.servers import s3_environment, s3_server
from tests.trainer.courses import metrics_of

TINY = "{ num_layers = 1, hidden_size = 16, ffn_size = 16, num_heads = 2, num_kv_heads = 1 }"
RUNS = "".join(
    f'[train.{name}]\nlayout = "plain"\nmodel = {TINY}\nsteps = 4\nbatch_size = 2\nlog_every = 1\ndevice = "cpu"\n'
    for name in ("first", "second")
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    write_project(root)
    (root / "recipe.toml").write_text(RECIPE.split("[train.tiny]")[0] + RUNS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert run().code == 0
    return root


@pytest.fixture
def project(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(packed, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def stopped(
    monkeypatch: pytest.MonkeyPatch, *arguments: str, at: str, by: signal.Signals = signal.SIGTERM, times: int = 1
) -> Called:
    """Train, with a signal as soon as the first line (or lines) that begins with `at` is printed."""
    sent: list[str] = []

    def echo(line: str, *, err: bool = False) -> None:
        typer.echo(line, err=err)
        if line.startswith(at) and len(sent) < times:
            sent.append(line)
            signal.raise_signal(by)

    with monkeypatch.context() as patch:
        patch.setattr("colophon.pipeline.cli.terminal.echo", echo)
        return colophon("train", "recipe.toml", *arguments)


def test_a_training_from_a_store_needs_a_local_directory(project: Path) -> None:
    on_store = ["--set", "output.path=memory://runs/web"]
    for command in (["train"], ["evaluate", "--name=first"]):
        assert colophon(command[0], "recipe.toml", *command[1:], *on_store).line == (
            "recipe.toml: output.path memory://runs/web is in an object store: set output.local_path, the "
            "local directory for training/"
        )
    called = colophon("train", "recipe.toml", *on_store, "--set", "output.local_path=here")
    assert called.code == ExitCode.USAGE
    assert called.line.startswith("memory://runs/web/manifest.json does not exist")
    called = colophon("train", "recipe.toml", "--set", "output.local_path=here")
    assert "local_path is for a path that is a URL" in called.line
    assert not Path("here").exists()


@pytest.mark.slow
def test_the_recipe_of_a_run_in_a_store_is_trained_and_evaluated(project: Path) -> None:
    settings = ["--set", "train.first.validation_rows=4", "--set", "input.partition_bytes=1000000"]
    places = {"disk": ["output.path=disk"], "local": ["output.path=s3://bucket/out", "output.local_path=local"]}
    with s3_server() as address, s3_environment(address):
        fsspec.filesystem("s3").mkdir("bucket")
        for place in places.values():
            options = [*settings, *(word for setting in place for word in ("--set", setting))]
            for command in (["run", "--executor", "inline"], ["train"], ["evaluate", "--name=first", "--documents=4"]):
                called = colophon(command[0], "recipe.toml", *command[1:], *options)
                assert called.code == 0, called.err
    assert metrics_of(Path("local"), "first") == metrics_of(Path("disk"), "first")
    disk, stored = (next(Path(name, "training/first").glob("evaluation*.json")).read_text() for name in places)
    assert stored.replace("s3://bucket/out", "disk") == disk


def test_a_dry_run_prints_the_runs_side_by_side_and_writes_nothing(project: Path) -> None:
    changed = ["train.first.text_tokens=1000", "train.first.order=documents", "train.second.order=documents"]
    options = [word for setting in changed for word in ("--set", setting)]
    Path("recipe.toml").write_text(Path("recipe.toml").read_text().replace("steps = 4\n", "", 1))
    before = snapshot()
    called = colophon("train", "recipe.toml", "--dry-run", *options)
    assert (called.code, called.err) == (0, "")
    title, heading, *rows = called.out.splitlines()
    assert title == "training runs that would be started"
    assert heading.split()[:3] == ["run", "layouts", "steps"]
    # Updates of 2 rows of 64 tokens: 1,000 text tokens are 8 of them.
    assert rows[0].split()[:3] == ["first", "plain", "8"]
    assert rows[1].split()[:3] == ["second", "plain", "4"]
    assert "  1,024  " in rows[0]
    assert rows[-1] == "the same text in every update, and the same validation documents: first, second"
    called = colophon("train", "recipe.toml", "--dry-run", "--name=first", "--json", *options)
    (plan,) = json.loads(called.out)
    called = colophon("train", "recipe.toml", "--dry-run", "--name=second", "--name=first", "--json", *options)
    assert [each["name"] for each in json.loads(called.out)] == ["second", "first"]
    assert (plan["name"], plan["steps"], plan["text_tokens"], plan["exists"]) == ("first", 8, 1024, False)
    assert snapshot() == before
    assert colophon("train", "recipe.toml", "--name=first", *options).code == 0
    called = colophon("train", "recipe.toml", "--dry-run", "--name=first", *options)
    expected = "first: out/training/first exists, with step 8: --resume continues it, --overwrite deletes it"
    assert called.out.splitlines()[-1] == expected


def started_runs() -> list[str]:
    return sorted(path.name for path in Path("out/training").iterdir())


def test_each_of_several_runs_is_announced(project: Path) -> None:
    called = colophon("train", "recipe.toml")
    assert (called.code, called.err) == (0, "")
    lines = called.out.splitlines()
    first, second = lines.index("first: 1 of 2 runs"), lines.index("second: 2 of 2 runs")
    assert first == 0
    assert [line.split()[1] for line in lines[first:second] if "tokens/s" in line] == ["1/4", "2/4", "3/4", "4/4"]
    assert [line.split()[1] for line in lines[second:] if "tokens/s" in line] == ["1/4", "2/4", "3/4", "4/4"]
    alone = colophon("train", "recipe.toml", "--name", "first", "--overwrite")
    assert alone.code == 0
    assert "of 1 runs" not in alone.out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 128 + signal.SIGUSR1), (signal.SIGINT, 130)]
)
def test_a_stopped_run_ends_with_the_code_of_its_signal(
    project: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    called = stopped(monkeypatch, "--name", "second", at="step 2/4", by=number)
    assert called.code == code
    assert called.line == f"stopped by {number.name} after step 2; --resume continues"
    assert Path("out/training/second/checkpoints/step-00000002").is_dir()
    assert colophon("train", "recipe.toml", "--name", "second", "--resume").code == 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Interrupts enabled: processes that a shell starts in the background ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_reports_how_to_resume(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = stopped(monkeypatch, at="step 2/4", by=signal.SIGINT, times=2)
    assert called.code == ExitCode.INTERRUPTED
    assert called.line == "first: interrupted; --resume continues"
    assert started_runs() == ["first"]


def test_without_checkpoints_no_resume_is_offered(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = stopped(monkeypatch, "--name", "first", "--set", "train.first.checkpoint_every=0", at="step 2/4")
    assert called.code == ExitCode.TERMINATED
    assert called.line == "stopped by SIGTERM after step 2; no checkpoint: checkpoint_every is 0"


def test_a_signal_ends_the_command_and_resume_completes_all_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = stopped(monkeypatch, at="step 2/4")
    assert called.code == ExitCode.TERMINATED
    assert called.line == "first: stopped by SIGTERM after step 2; --resume continues"
    assert started_runs() == ["first"]
    called = colophon("train", "recipe.toml", "--resume")
    assert (called.code, called.err) == (0, "")
    assert started_runs() == ["first", "second"]
    assert called.out.count("step 4/4  saved ") == 2
    (begun,) = [line for line in called.out.splitlines() if line.startswith("no checkpoint to resume from")]
    assert begun.endswith("training/second/checkpoints; the run begins with step 1")


def test_a_signal_after_the_last_step_starts_no_later_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = stopped(monkeypatch, at="step 4/4  validation")
    assert called.code == ExitCode.TERMINATED
    assert called.line == "first: stopped by SIGTERM after step 4; --resume continues"
    assert started_runs() == ["first"]


def test_a_signal_after_the_last_step_of_the_last_run_changes_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = stopped(monkeypatch, "--name", "second", at="step 4/4  validation")
    assert (called.code, called.err) == (0, "")


def test_one_of_several_processes_reports(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    called = stopped(monkeypatch, at="step 2/4", by=signal.SIGINT)
    assert (called.code, called.err) == (ExitCode.INTERRUPTED, "")
    assert "1 of 2 runs" not in called.out
    for command in (["train", "recipe.toml", "--dry-run"], ["trace", "recipe.toml", "--name", "first", "--step", "1"]):
        silent = colophon(*command)
        assert (silent.code, silent.out, silent.err) == (0, "", "")


def test_a_run_that_diverges_does_not_stop_the_runs_after_it(project: Path) -> None:
    wild = ("--set", "train.first.learning_rate=1e30")
    called = colophon("train", "recipe.toml", *wild)
    assert called.code == 1
    diverged, last = called.err.splitlines()
    assert diverged.startswith("colophon: first: step ")
    assert "the gradient is nan" in diverged
    assert last.startswith(
        "colophon: failed: first; the other 1 of 2 runs are complete. After a change of the recipe, "
    )
    assert Path("out/training/second/checkpoints/step-00000004").is_dir()
    again = colophon("train", "recipe.toml", *wild, "--resume")
    assert again.code == 1
    assert again.err.splitlines()[1] == last
    called = colophon("train", "recipe.toml", "--resume")
    assert (called.code, called.err) == (0, "")
    alone = colophon("train", "recipe.toml", "--name", "first", *wild, "--overwrite")
    assert alone.code == 1
    assert alone.line.startswith("step ")


def test_a_stop_after_a_run_that_diverged_names_both(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wild = ("--set", "train.first.learning_rate=1e30")
    called = stopped(monkeypatch, *wild, "--set", "train.second.steps=7", at="step 2/7")
    assert called.code == ExitCode.TERMINATED
    assert called.err.splitlines()[-1].endswith(
        "second: stopped by SIGTERM after step 2; --resume continues; failed before: first"
    )
