"""How fast a training reads packed shards from an object store, beside a disk.

    python -m benchmarks.store_reading RUN --layout NAME      measure, and write benchmarks/results/store_reading.json

RUN is the output of a finished run on a disk. A second process copies its manifest and the layout's shards to an S3 on
loopback, moto's, in its memory: it answers far fewer requests a second than a real store, without a network's delay.
In each round a small model is trained on the disk, on the store with an empty cache, and on the store with the cache
that this has left. All have the same loss, or the measurement fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.summary import Spread, interleaved, ratios

RESULTS = Path(__file__).parent / "results" / "store_reading.json"
_ROOT = Path(__file__).parents[1]
_BUCKET = "bench"
_STORE = f"s3://{_BUCKET}/run"
DISK, COLD, WARM = "disk", "store, cold cache", "store, warm cache"
_NAME = "store-reading"


def trained(run: str, settings: dict[str, Any], *, directory: Path) -> dict[str, float]:
    """Train once on the run at a local path or a URL; return tokens a second, the share of waiting, and the loss.

    The first update is not counted: it waits for its own rows and touches all memory first.
    """
    from colophon.shards.stores.places import run_place
    from colophon.trainer.config import TrainConfig
    from colophon.trainer.loop import train

    config = TrainConfig.model_validate(settings)
    result = train(config, name=_NAME, output=run_place(run), directory=directory, overwrite=True)
    lines = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text("utf-8").splitlines()]
    first, *steps = [line for line in lines if "loss" in line]
    tokens = [line["tokens"] - before["tokens"] for before, line in zip([first, *steps], steps, strict=False)]
    seconds = [number / line["tokens_per_second"] for number, line in zip(tokens, steps, strict=True)]
    waited = sum(line["data_wait"] * each for line, each in zip(steps, seconds, strict=True))
    return {
        "tokens_per_second": sum(tokens) / sum(seconds),
        "data_wait": waited / sum(seconds),
        "loss": steps[-1]["loss"],
    }


def measure(run: Path, settings: dict[str, Any], *, rounds: int, work: Path) -> dict[str, list[dict[str, float]]]:
    """Train in all ways, the rounds interleaved; return what each found.

    Raises:
        ValueError: the losses differ.
    """
    found: dict[str, list[dict[str, float]]] = {DISK: [], COLD: [], WARM: []}
    with _on_store(run, layout=settings["layout"]):
        for turn, place in interleaved([str(run), _STORE], rounds=rounds):
            cache = work / f"cache-{turn}"
            for way in (COLD, WARM) if place == _STORE else (DISK,):
                found[way].append(trained(place, {**settings, "cache_directory": str(cache)}, directory=work))
                print(f"round {turn + 1}: {way}: {found[way][-1]['tokens_per_second']:,.0f} tokens/s", flush=True)
            shutil.rmtree(cache, ignore_errors=True)
    losses = {each["loss"] for runs in found.values() for each in runs}
    if len(losses) > 1:
        raise ValueError(f"the losses differ: {sorted(losses)}")
    return found


@contextmanager
def _on_store(run: Path, *, layout: str) -> Iterator[None]:
    """Serve the manifest and the layout's shards of a run at `_STORE`, by a process that ends with the context."""
    from tests.pipeline.servers import s3_environment

    command = [sys.executable, "-m", "benchmarks.store_reading", "serve", str(run), layout]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        with server.stdin, s3_environment(server.stdout.readline().strip()):
            yield


def serve(run: Path, layout: str) -> None:
    """Serve the files of a run until the standard input ends; print the address."""
    import fsspec

    from tests.pipeline.servers import put_object, s3_environment, s3_server

    with s3_server() as address, s3_environment(address):
        fsspec.filesystem("s3").mkdir(_BUCKET)
        tables, shards = (run / "manifest").rglob("*.parquet"), (run / "packed" / layout).glob("*.arrow")
        for path in (run / "manifest.json", *tables, *shards):
            put_object(_BUCKET, f"run/{path.relative_to(run)}", path.read_bytes())
        print(address, flush=True)
        sys.stdin.read()


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The spreads of all rounds, and how many times faster the disk is."""
    keys = ("tokens_per_second", "data_wait")
    times = {name: Spread.of([1 / each["tokens_per_second"] for each in runs]) for name, runs in found.items()}
    return {
        "ways": {
            name: {key: Spread.of([each[key] for each in runs]).as_dict() for key in keys}
            for name, runs in found.items()
        },
        "disk_is_faster": ratios(times, of=DISK),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["serve"]:  # the process that `measure` starts
        serve(Path(arguments[1]), arguments[2])
        return 0
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.store_reading",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--layout", required=True)
    parser.add_argument("--model", default="1m", help="preset of the model")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--micro-batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    settings = {
        **{key: getattr(options, key) for key in ("layout", "model", "steps", "batch_size", "micro_batch_size")},
        **{"validation_rows": 0, "checkpoint_every": 0, "log_every": 1, "device": "cpu"},
    }
    with tempfile.TemporaryDirectory() as work:
        found = measure(options.run.resolve(), settings, rounds=options.rounds, work=Path(work))
    results = {"machine": machine(), "rounds": options.rounds, "settings": settings, **summary(found)}
    options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
