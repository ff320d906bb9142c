"""The contestants: how each is started, which packages it needs, and how its output is read."""

from __future__ import annotations

import gzip
import importlib.util
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import outputs
from benchmarks.job import Job
from benchmarks.workload import ROOT

COLOPHON, COLOPHON_ON_RAY = "colophon", "colophon_ray"
PARTITION_BYTES = 16 << 20
"""Small enough for two workers to share a few files evenly; the default of 64 MB is for larger inputs."""
INSTALL = "pip install -e '.[bench]'"
INSTALL_DOLMA = "python -m benchmarks install-dolma"
DOLMA_PACKAGES = ("dolma==1.2.1", "boto3==1.26.76", "s3fs==2023.6.0", "numpy<2")
"""boto3 and s3fs are of Dolma's time: without these pins pip tries hundreds of incompatible versions."""
_RECIPE = """\
[input]
paths = {paths}
partition_bytes = {partition_bytes}

[output]
path = {output}

[annotators.quality]
type = "fasttext"
model = {quality}
normalize = {{ newline = "space" }}
score = {{ probability_of = {high} }}

[annotators.topic]
type = "fasttext"
model = {topic}
normalize = {{ newline = "space" }}
score = {{ argmax = true }}

[tokenizer]
path = {vocabulary}
pattern = {pattern}

[ray]
num_workers = {workers}
"""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to do the job."""

    name: str
    title: str
    """For tables and charts."""
    command: Callable[[Job], Sequence[str]]
    """Started in a new process, in the root of the checkout, with an empty output directory."""
    read: outputs.Reader
    modules: tuple[str, ...]
    """Modules that it imports."""
    packages: tuple[str, ...]
    """Packages whose versions are in the results."""
    megabytes_per_second: float
    """Rough speed of two workers, to estimate how long a run takes."""
    start_seconds: float
    strips: bool = False
    """Whether it strips texts before it scores them."""
    prepare: Callable[[Job], None] = lambda job: None
    """Called once per job, not timed: prepares what the contestant's documentation assumes."""
    env: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable

    def missing(self) -> str | None:
        """Return why it cannot take part, or None if it can."""
        if not Path(self.python).is_file():
            return f"needs its own environment ({INSTALL_DOLMA})"
        if self.python != sys.executable:
            code = f"import importlib.util as u; print(*(m for m in {self.modules!r} if u.find_spec(m) is None))"
            done = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=False)
            absent = done.stdout.split() if done.returncode == 0 else list(self.modules)
        else:
            absent = [module for module in self.modules if importlib.util.find_spec(module) is None]
        return f"not installed: {', '.join(absent)} ({INSTALL})" if absent else None

    def versions(self) -> dict[str, str]:
        """Return the versions of its packages."""
        code = f"from importlib.metadata import version as v; print(*(v(p) for p in {self.packages!r}))"
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True)
        return dict(zip(self.packages, done.stdout.split(), strict=True))


def write_recipe(job: Job, *, partition_bytes: int = PARTITION_BYTES, more: str = "") -> Path:
    """Write the job as a recipe beside its output."""
    path = Path(f"{job.output}.toml")
    values = {
        "paths": list(job.files),
        "output": job.output,
        "quality": job.quality.model,
        "high": job.high,
        "topic": job.topic.model,
        "vocabulary": job.vocabulary.tiktoken,
        "pattern": job.vocabulary.pattern_name,
    }
    # JSON strings are TOML strings as long as no character is written as a pair of surrogates.
    quoted = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    text = _RECIPE.format(**quoted, workers=job.workers, partition_bytes=partition_bytes)
    path.write_text(text + more, encoding="utf-8")
    return path


def _colophon(executor: str) -> Callable[[Job], list[str]]:
    def command(job: Job) -> list[str]:
        return [sys.executable, "-m", "colophon", "run", str(write_recipe(job)), "--executor", executor]

    return command


def _peer(module: str, python: str = sys.executable) -> Callable[[Job], list[str]]:
    def command(job: Job) -> list[str]:
        return [python, "-m", f"benchmarks.peers.{module}", str(job.save(Path(f"{job.output}.json")))]

    return command


def write_json_lines(job: Job) -> None:
    """Write the documents as gzipped JSON lines to `job.json_lines`, one file per input file, if they are missing."""
    final = Path(job.json_lines)
    if final.is_dir():
        return
    scratch = Path(tempfile.mkdtemp(dir=final.parent))
    for file in map(Path, job.files):
        table = pq.read_table(file, columns=["id", "text"])
        with gzip.open(scratch / f"{file.stem}.jsonl.gz", "wt", encoding="utf-8", compresslevel=6) as lines:
            lines.writelines(json.dumps({**row, "source": "bench"}) + "\n" for row in table.to_pylist())
    scratch.rename(final)


def dolma_environment(work: Path) -> Path:
    """Return the directory of the environment that `install_dolma` creates."""
    return work / "dolma"


def install_dolma(work: Path) -> None:
    """Create a virtual environment with Dolma under `work`; takes a few minutes and needs a network.

    Raises:
        CalledProcessError: pip failed.
    """
    directory = dolma_environment(work)
    venv.create(directory, with_pip=True, clear=True)
    subprocess.run([directory / "bin" / "python", "-m", "pip", "install", "--quiet", *DOLMA_PACKAGES], check=True)


def contestants(*, work: Path, dolma_python: str | None = None) -> dict[str, Contestant]:
    """Return all contestants by name, Colophon first.

    Args:
        work: directory of caches that are filled before the timed runs.
        dolma_python: the interpreter of an environment with Dolma, whose pins conflict with those of the others;
            default: the environment of `install_dolma`.
    """
    # Workers import the recipe's packages, the peers this one: both are found from the root.
    env = {"PYTHONPATH": str(ROOT), "COLOPHON_CACHE_DIR": str(work / "cache" / "colophon")}
    assets = {"HF_ASSETS_CACHE": str(work / "cache" / "assets"), "PYTHONPATH": str(ROOT)}
    own_python = dolma_python or str(dolma_environment(work) / "bin" / "python")
    found = [
        Contestant(
            name=COLOPHON,
            title="Colophon, local processes",
            command=_colophon("local"),
            read=outputs.read_colophon,
            modules=("gigatoken", "numba"),
            packages=("gigatoken", "numba", "pyarrow"),
            megabytes_per_second=25,
            start_seconds=3,
            env=env,
        ),
        Contestant(
            name=COLOPHON_ON_RAY,
            title="Colophon, Ray",
            command=_colophon("ray"),
            read=outputs.read_colophon,
            modules=("ray", "gigatoken", "numba"),
            packages=("ray", "gigatoken", "numba", "pyarrow"),
            megabytes_per_second=20,
            start_seconds=10,
            env=env,
        ),
        Contestant(
            name="hand_written",
            title="script: fasttext + tiktoken",
            command=_peer("hand_written"),
            read=outputs.read_arrow,
            modules=("fasttext", "tiktoken", "pyarrow"),
            packages=("fasttext", "tiktoken", "pyarrow"),
            megabytes_per_second=3,
            start_seconds=10,
            env={"PYTHONPATH": str(ROOT)},
        ),
        Contestant(
            name="ray_data",
            title="Ray Data",
            command=_peer("ray_data"),
            read=outputs.read_parquet,
            modules=("ray", "pandas", "fasttext", "tiktoken"),
            packages=("ray", "fasttext", "tiktoken"),
            megabytes_per_second=1.1,
            start_seconds=25,
            env={"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"},
        ),
        Contestant(
            name="datatrove",
            title="datatrove",
            command=_peer("datatrove_local"),
            read=outputs.read_datatrove,
            modules=("datatrove", "fasttext", "fasteners", "tokenizers"),
            packages=("datatrove", "fasttext", "tokenizers"),
            megabytes_per_second=0.95,
            start_seconds=25,
            strips=True,
            env=assets,
        ),
        Contestant(
            name="dolma",
            title="Dolma",
            command=_peer("dolma_cli", own_python),
            read=outputs.read_dolma,
            modules=("dolma",),
            packages=("dolma", "fasttext-wheel", "tokenizers"),
            megabytes_per_second=1,
            start_seconds=30,
            strips=True,
            prepare=write_json_lines,
            env={"PYTHONPATH": str(ROOT)},
            python=own_python,
        ),
    ]
    return {contestant.name: contestant for contestant in found}
