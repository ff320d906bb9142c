"""`--shard` and `finish`: the files of one run, whatever the number, the order and the fate of the shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from colophon.pipeline.runs.sharded import finish
from colophon.pipeline.storage.commits import Store
from colophon.pipeline.storage.lock import locked
from colophon.pipeline.storage.shard import Shard
from tests.pipeline.project import (
    Called,
    colophon,
    execute,
    hashes,
    manifest,
    resolved_recipe,
    run,
    snapshot,
    write_documents,
)
from tests.pipeline.runs.test_run import NoExecutor


def shard(number: int, *options: str, count: int = 3) -> Called:
    return run("--shard", f"{number}/{count}", *options)


def content(output: Path) -> dict[str, bytes]:
    """The files of a run, without its times, without the shards' own files and the segments of records."""
    files = (path for path in output.rglob("*") if path.is_file())
    names = {path.relative_to(output).as_posix(): path for path in files}
    others = ("shards/", "report/", "rates", "records/segment-")
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(others)}


def test_shards_in_any_order_make_the_files_of_one_run(project: Path, templates: Path) -> None:
    for number in (2, 3):
        called = shard(number)
        assert (called.code, called.err) == (0, "")
        assert called.out.splitlines()[-1].endswith(
            "partitions are complete. When all shards are: colophon finish recipe.toml"
        )
    assert not Path("out/manifest.json").exists()
    early = colophon("finish", "recipe.toml")
    assert early.code == 1
    total = len(manifest(str(templates / "finished/out")).partitions)
    assert early.line.endswith(
        f" of {total} partitions are missing or out of date, of shards 1 of 3. Run each of them again, such as "
        "`colophon run recipe.toml --shard 1/3`, then `colophon finish recipe.toml`"
    )
    assert not Path("out/manifest.json").exists()
    assert shard(1).code == 0
    finished = colophon("finish", "recipe.toml")
    assert (finished.code, finished.err) == (0, "")
    assert content(Path("out")) == content(templates / "finished" / "out")
    times = json.loads(Path("out/report/run.json").read_text())["passes"]
    assert {name: each["partitions"] for name, each in times.items()} == {"annotate, tokenize": total, "pack": total}
    files = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    again = colophon("finish", "recipe.toml")
    assert again.code == 0
    assert "nothing to do: all files are up to date" in again.out
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == files
    assert colophon("verify", "recipe.toml").code == 0
    assert "nothing to do" in run().out


def test_the_commands_that_shards_and_finish_name_have_the_options_of_the_call(project: Path) -> None:
    options, quoted = ("--set", "output.path=out 2"), "recipe.toml --set 'output.path=out 2'"
    ended = shard(1, *options, count=2)
    assert ended.out.splitlines()[-1].endswith(f"When all shards are: colophon finish {quoted}")
    early = colophon("finish", "recipe.toml", *options)
    assert early.code == 1
    assert early.line.endswith(f"`colophon run {quoted} --shard 2/2`, then `colophon finish {quoted}`")


def test_a_shard_that_runs_again_does_nothing_twice_and_keeps_its_times(project: Path) -> None:
    assert shard(1, count=1).code == 0
    before, state = snapshot(Path("out/packed")), json.loads(Path("out/shards/1-of-1.json").read_text())
    assert "are complete, nothing to do" in shard(1, count=1).out
    assert snapshot(Path("out/packed")) == before
    assert json.loads(Path("out/shards/1-of-1.json").read_text()) == state


def test_shards_of_another_count_replace_the_earlier_ones(project: Path, templates: Path) -> None:
    assert shard(1, count=5).code == 0
    for number in (1, 2):
        assert shard(number, count=2).code == 0
    assert {path.name for path in Path("out/shards").iterdir()} == {"1-of-2.json", "2-of-2.json"}
    assert colophon("finish", "recipe.toml").code == 0
    assert hashes(manifest()) == hashes(manifest(str(templates / "finished/out")))


def test_more_shards_than_partitions_are_complete_at_once(project: Path) -> None:
    called = shard(900, count=1000)
    assert called.code == 0
    assert "shard 900/1000: 0 partitions are complete" in called.out
    assert "no shard has begun" not in colophon("finish", "recipe.toml").err


def test_finish_without_shards(project: Path, templates: Path) -> None:
    called = colophon("finish", "recipe.toml")
    assert called.code == 1
    assert called.line.endswith("and no shard has begun. `colophon run recipe.toml --shard NUMBER/COUNT` runs one")
    assert run().code == 0
    assert colophon("finish", "recipe.toml").code == 0, "a complete run is finished"


def test_finish_with_a_changed_recipe_names_the_change_and_not_shards_that_would_refuse_it(project: Path) -> None:
    change = ("--set", "pack.sequence_length=96")
    assert shard(1, count=1).code == 0
    before = snapshot(Path("out"))
    refused = colophon("finish", "recipe.toml", *change)
    assert refused.code == 2
    assert "was written with other settings: pack.sequence_length: " in refused.line
    assert "`colophon run recipe.toml --set pack.sequence_length=96 --rebuild`, or each shard" in refused.line
    assert snapshot(Path("out")) == before
    assert shard(1, *change, "--rebuild", count=2).code == 0
    half = colophon("finish", "recipe.toml", *change)
    assert (half.code, "of shards 2 of 2. Run each" in half.line) == (1, True)
    assert shard(2, *change, count=2).code == 0
    assert colophon("finish", "recipe.toml", *change).code == 0


def test_quarantined_partitions_are_in_the_manifest_and_in_the_exit_codes(project: Path) -> None:
    whole = Path("data/part-1.parquet").read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 4 : len(whole) // 2] = bytes(len(whole) // 2 - len(whole) // 4)
    Path("data/part-1.parquet").write_bytes(damaged)
    Path("data/part-9.parquet").write_bytes(b"no Parquet file")
    assert run("--set", "output.path=whole").code == 3
    codes = [shard(number).code for number in (1, 2, 3)]
    assert set(codes) <= {0, 3} and 3 in codes
    finished = colophon("finish", "recipe.toml", "--json")
    assert finished.code == json.loads(finished.out)["exit_code"] == 3
    assert hashes(manifest()) == hashes(manifest("whole"))
    assert Path("out/quarantine.jsonl").read_text() == Path("whole/quarantine.jsonl").read_text()
    assert colophon("finish", "recipe.toml").code == 3
    Path("data/part-1.parquet").write_bytes(whole)
    late = colophon("finish", "recipe.toml")
    assert late.code == 1, "the entries are those of the earlier file"
    assert "partitions are missing or out of date" in late.line


def test_files_that_a_network_disk_shows_late_are_waited_for(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shard(1, count=1).code == 0
    hidden = Path("out/tokens")
    hidden.rename("hidden")
    pauses: list[float] = []

    def appear(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            Path("hidden").rename(hidden)

    monkeypatch.setattr(finish.time, "sleep", appear)
    assert colophon("finish", "recipe.toml").code == 0
    assert pauses == [1.0, 2.0]


def test_a_run_and_a_shard_are_refused_beside_each_other(project: Path) -> None:
    with locked(Store("out", shard=Shard(2, 3)), log=print):
        for called in (run(), shard(2), shard(1, count=2), colophon("finish", "recipe.toml")):
            assert called.code == 1
            assert called.line.startswith("out: shard 2/3 (process ")
        assert shard(1).code == 0
        status = json.loads(colophon("status", "recipe.toml", "--json").out)
        assert (status["running"], list(status["running_shards"])) == (None, ["2/3"])
        assert "running: shard 2/3, process " in colophon("status", "recipe.toml").out
    with locked(Store("out"), log=print):
        assert shard(2).line.startswith("out: another run (process ")


def test_a_changed_recipe_is_refused_by_shards_as_by_runs(project: Path) -> None:
    assert shard(1).code == 0
    change = ("--set", "pack.sequence_length=80")
    assert "was written with other settings" in shard(2, *change).line
    assert shard(2, *change, "--rebuild").code == 0
    assert shard(1, *change).code == 0
    assert shard(3, *change).code == 0
    assert colophon("finish", "recipe.toml", *change).code == 0
    assert run("--set", "output.path=whole", *change).code == 0
    assert hashes(manifest()) == hashes(manifest("whole"))


def test_settings_without_files_are_replaced_unless_another_recipe_is_at_work(
    project: Path, quality_model: Path
) -> None:
    bins = "bins = { quantiles = 4, sample = 1000 }, score = { probability_of = 'high' }"
    quality = f"annotators.quality={{ type = 'fasttext', model = '{quality_model}', {bins} }}"
    with pytest.raises(AssertionError):
        execute(quality, executor=NoExecutor())  # writes the settings and the edges of bins, and no file
    mended = (quality, "annotators.quality.bins.quantiles=3", "pack.seed=1")
    options = [word for setting in mended for word in ("--set", setting)]
    with locked(Store("out", shard=Shard(2, 3)), log=print):
        assert "out/annotations/quality was written with other settings" in shard(1, *options).line
    with locked(Store("out", shard=Shard(2, 3)), log=print, recipe=resolved_recipe(*mended).digest):
        assert (shard(1, *options).code, shard(1, "--set", quality).code) == (0, 2)


def test_some_stages_in_shards(project: Path, templates: Path) -> None:
    for number in (1, 2):
        assert colophon("annotate", "recipe.toml", "--executor", "inline", "--shard", f"{number}/2").code == 0
    assert colophon("finish", "recipe.toml").code == 0
    whole = hashes(manifest(str(templates / "finished/out")))
    assert hashes(manifest()) == {key: sha for key, sha in whole.items() if key[0].startswith("annotations/")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shard", "4/3"), "--shard 4/3: must be NUMBER/COUNT with 1 <= NUMBER <= COUNT, such as 3/64"),
        (
            ("--shard", "1/3", "--executor", "ray"),
            "--shard 1/3: a shard runs without Ray; available executors: auto, local, inline",
        ),
    ],
)
def test_options_that_cannot_work_write_nothing(project: Path, options: tuple[str, ...], message: str) -> None:
    called = colophon("run", "recipe.toml", *options)
    assert (called.code, called.line) == (2, message)
    assert not Path("out").exists()


def test_a_dry_run_of_a_shard_lists_its_share(project: Path, templates: Path) -> None:
    listed = []
    for number in (1, 2):
        called = run("--shard", f"{number}/2", "--dry-run", "--no-probe", "--json")
        listed += [partition["name"] for partition in json.loads(called.out)["partitions"]]
    assert sorted(listed) == sorted(p.name for p in manifest(str(templates / "finished/out")).partitions)
    assert not Path("out").exists()


def test_input_that_grows_between_shards_is_reported(project: Path) -> None:
    assert shard(1, count=2).code == 0
    write_documents(Path("data/part-3.parquet"), range(900, 990))
    assert shard(2, count=2).code == 0
    called = colophon("finish", "recipe.toml")
    assert called.code == 1
    assert "of shards 1 of 2" in called.line
    assert shard(1, count=2).code == 0
    assert colophon("finish", "recipe.toml").code == 0
