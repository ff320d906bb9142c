"""Runs with random faults, repeated and compared with an undisturbed run: `make soak`.

Every round writes to a new directory. The run or its processes are killed, or its disk is full, at moments that a seed
decides (the work at that moment depends on the machine), and the command is repeated until it succeeds. A loss is a
document that is missing in the output, or a file with different bytes than without faults.

    python -m tests.soak --minutes 20 --seed 1
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from colophon.pipeline.storage.fault_injection import VARIABLE
from colophon.shards.manifest import Manifest, read_manifest
from tests.pipeline.project import write_project, write_tokenizer

ROOT = Path(__file__).parents[1]
WEB = ROOT.parent / "shared" / "data" / "web"
RECIPE = """
[input]
paths = ["data/*.parquet"]
partition_bytes = 1500000
[output]
path = "{output}"
[annotators.url]
[annotators.crawl]
[tokenizer]
path = "small.tiktoken"
pattern = "gpt2"
[pack]
sequence_length = 1024
[layouts.plain]
position = "plain"
[layouts.prepend-url]
position = "prepend"
template = "{{url}}"
[layouts.append-host]
position = "append"
template = "{{url_host}}"
[layouts.meta-tokens]
position = "meta_tokens"
[ray]
num_workers = 2
partition_timeout_seconds = 20
max_attempts = 20
"""
OF_THE_DRIVER = ("before segment", "before removal", "before manifest")
STEPS = ("before write", "mid-write", "before rename", "before record", *OF_THE_DRIVER)
STAGES = ("", "", "annotations", "tokens", "packed")
CALL_SECONDS = 300
MAX_CALLS = 30


@dataclass
class Tally:
    """The counts of a soak."""

    faults: Counter[str] = field(default_factory=Counter)
    """Faults that took effect, by kind."""
    rounds: int = 0
    calls: int = 0
    partitions: int = 0
    documents: int = 0
    losses: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the counts as lines of text."""
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.faults.items()))
        return [
            f"rounds {self.rounds}, calls of the command {self.calls}",
            f"faults {sum(self.faults.values())}: {kinds}",
            f"partitions {self.partitions:,}, documents {self.documents:,}",
            f"losses {len(self.losses)}",
            *self.losses,
        ]


class Soak:
    """A project, its undisturbed output, and rounds with faults that must give the same output."""

    def __init__(self, directory: Path, *, seed: int) -> None:
        self._directory = directory
        self._random = random.Random(seed)
        self._marks = directory / "marks"
        self._documents = _write_project(directory)
        self.tally = Tally()
        code = self._call("undisturbed", [], {})
        if code != 0:
            raise RuntimeError(f"the undisturbed run ended with {code}")
        self._expected = _hashes(directory / "undisturbed")

    def round(self) -> None:
        """Repeat the command into a new output until a run succeeds, and compare the output."""
        output = f"round-{self.tally.rounds}"
        self.tally.rounds += 1
        for attempt in range(MAX_CALLS):
            executor = self._random.choice(list(_KINDS))
            kind = "none" if attempt >= MAX_CALLS - 3 else self._random.choice(_KINDS[executor])
            self.tally.calls += 1
            if self._disturbed(output, executor=executor, kind=kind) == 0:
                break
        else:
            self.tally.losses.append(f"{output}: did not end in {MAX_CALLS} calls")
        self._compare(output)
        shutil.rmtree(self._directory / output)

    def _disturbed(self, output: str, *, executor: str, kind: str) -> int:
        shutil.rmtree(self._marks, ignore_errors=True)
        self._marks.mkdir()
        arguments = ["--executor", executor]
        if kind == "none":
            return self._call(output, arguments, {})
        if kind in _VICTIMS:
            return self._at_a_moment(output, arguments, kind=kind)
        return self._at_a_step(output, arguments, kind=kind)

    def _at_a_step(self, output: str, arguments: Sequence[str], *, kind: str) -> int:
        step = self._random.choice(STEPS if kind != "hang" else STEPS[: -len(OF_THE_DRIVER)])
        at = self._random.randint(1, 2 if step in OF_THE_DRIVER else 20) if step != "before manifest" else 1
        times = self._random.choice([1, 1, 2])
        stage = self._random.choice(STAGES) if step not in ("mid-write", *OF_THE_DRIVER) else ""
        fault = {"step": step, "action": kind, "directory": str(self._marks), "stage": stage, "at": at, "times": times}
        code = self._call(output, arguments, {VARIABLE: json.dumps(fault)})
        reached = len(list(self._marks.iterdir()))
        self.tally.faults[f"{kind}, {step}"] += max(0, min(reached - at + 1, times))
        return code

    def _at_a_moment(self, output: str, arguments: Sequence[str], *, kind: str) -> int:
        process = self._start(output, arguments, {})
        with suppress(subprocess.TimeoutExpired):
            process.wait(self._random.uniform(0.2, 12.0))
        children: list[psutil.Process] = []
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            found = [psutil.Process(process.pid)] if kind == "kill the driver" else _victims(children, kind)
            if found:
                with suppress(psutil.NoSuchProcess):
                    self._random.choice(found).kill()
                self.tally.faults[kind] += 1
        code = self._ended(process)
        psutil.wait_procs(children, timeout=30)
        return code

    def _compare(self, output: str) -> None:
        try:
            found = _hashes(self._directory / output)
            manifest = _manifest(self._directory / output)
        except (OSError, ValueError) as error:
            self.tally.losses.append(f"{output}: no manifest: {error}")
            return
        self.tally.partitions += len(manifest.partitions)
        documents = sum(record.rows for record in manifest.outputs["tokens"].records)
        self.tally.documents += documents
        if documents != self._documents or manifest.quarantine:
            self.tally.losses.append(f"{output}: {documents} documents of {self._documents}, {manifest.quarantine[:1]}")
        for key in sorted(set(found) ^ set(self._expected)):
            self.tally.losses.append(f"{output}: {key} exists in one of the two runs only")
        for key in sorted(key for key in set(found) & set(self._expected) if found[key] != self._expected[key]):
            self.tally.losses.append(f"{output}: {key} has different bytes")
        code = subprocess.run(
            [sys.executable, "-m", "colophon", "verify", self._recipe(output)],
            cwd=self._directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            check=False,
        ).returncode
        if code:
            self.tally.losses.append(f"{output}: verify ends with {code}")

    def _recipe(self, output: str) -> str:
        path = self._directory / f"{output}.toml"
        path.write_text(RECIPE.format(output=output), encoding="utf-8")
        return str(path)

    def _start(self, output: str, arguments: Sequence[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self._directory / f"{output}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "colophon", "run", self._recipe(output), *arguments],
                cwd=self._directory,
                env={**os.environ, "PYTHONPATH": str(ROOT), **env},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _call(self, output: str, arguments: Sequence[str], env: dict[str, str]) -> int:
        return self._ended(self._start(output, arguments, env))

    def _ended(self, process: subprocess.Popen[bytes]) -> int:
        try:
            return process.wait(CALL_SECONDS)
        except subprocess.TimeoutExpired:
            self.tally.losses.append(f"a call did not end in {CALL_SECONDS} s")
            process.kill()
            return process.wait()


_VICTIMS = ("kill the driver", "kill a worker", "kill the raylet", "kill the fork server")
_KINDS = {
    "inline": ("none", "kill", "kill", "disk full", "kill the driver"),
    "local": ("none", "kill", "kill", "hang", "disk full", "kill the driver", "kill a worker", "kill the fork server"),
    "ray": ("none", "kill", "kill", "hang", "disk full", "kill the driver", "kill a worker", "kill the raylet"),
}
"""Kinds of faults by executor; `inline` has no worker that could be ended when it hangs."""


def _victims(children: Sequence[psutil.Process], kind: str) -> list[psutil.Process]:
    """Those of a run's processes that the fault may strike."""
    lines = {child: _command_line(child) for child in children}
    servers = [child for child, line in lines.items() if "multiprocessing.forkserver" in line]
    forks = [child for child in servers if _parent(child) in servers]  # a fork has its server's command line
    if kind == "kill the fork server":
        return [child for child in servers if child not in forks]
    if kind == "kill the raylet":
        return [child for child, line in lines.items() if line.split(" ")[0].endswith("/raylet")]
    return [*forks, *(child for child, line in lines.items() if line.startswith("ray::"))]


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _parent(process: psutil.Process) -> psutil.Process | None:
    try:
        return process.parent()
    except psutil.NoSuchProcess:
        return None


def _write_project(directory: Path) -> int:
    """Write the project, with real text if it exists; return the number of documents."""
    if WEB.is_dir():
        (directory / "data").mkdir(parents=True)
        for path in sorted(WEB.glob("*.parquet"))[:2]:
            table = pq.read_table(path, columns=["text", "id", "url", "dump"]).slice(0, 4000)
            pq.write_table(table, directory / "data" / path.name, row_group_size=250, compression="zstd")
        write_tokenizer(directory / "small.tiktoken")
    else:
        write_project(directory)
    return sum(pq.read_metadata(path).num_rows for path in (directory / "data").glob("*.parquet"))


def _manifest(output: Path) -> Manifest:
    return read_manifest(output)


def _hashes(output: Path) -> dict[tuple[str, str], str]:
    outputs = _manifest(output).outputs.values()
    return {(record.output, record.partition): record.sha256 for content in outputs for record in content.records}


def main() -> int:
    """Run the soak; return 1 after a loss, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        soak = Soak(Path(directory), seed=options.seed)
        ends = time.monotonic() + 60 * options.minutes
        while time.monotonic() < ends:
            soak.round()
            kinds = sum(soak.tally.faults.values())
            print(f"round {soak.tally.rounds}: {kinds} faults, {len(soak.tally.losses)} losses so far", flush=True)
    print(f"seed {options.seed}", *soak.tally.lines(), sep="\n")
    return 1 if soak.tally.losses else 0


if __name__ == "__main__":
    sys.exit(main())
