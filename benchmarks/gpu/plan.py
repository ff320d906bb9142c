"""The parts of a run, in the order of worth: when the time is over, the least is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

Size: TypeAlias = Literal["full", "tiny"]
"""tiny: models of a few thousand weights, for tests on a CPU."""

MODES = {"modes-124m": "124m", "modes-1.5b": "1.5b", "modes-1m": "1m"}
"""The preset of each part that trains in several ways, see `benchmarks.gpu.modes`."""
KNOWN_ANSWER = Path(__file__).parents[2] / "examples" / "known_answer" / "study.py"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One process with its own time limit and its own result file."""

    name: str
    """Also of its result file, without the suffix."""
    command: Sequence[str]
    """`{output}` is replaced by the path of the result file, `{minutes}` by the time that the part has."""
    limit_s: float
    """It is stopped after so long, or at the end of the run."""
    needs_s: float = 20.0
    """It is not started with less time left."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A model and rows to measure."""

    preset: str
    num_ids: int
    sequence_length: int
    batch_size: int
    micro_batch_size: int
    steps: int

    @property
    def name(self) -> str:
        """For files: `speed-124m-50304-2048`."""
        return f"speed-{self.preset}-{self.num_ids}-{self.sequence_length}"


def configurations(size: Size) -> list[Configuration]:
    """All twelve, those first from which most can be learnt: each preset once, then each vocabulary, then the rest."""
    if size == "tiny":
        tiny = {"num_ids": 512, "sequence_length": 64, "batch_size": 4, "micro_batch_size": 2, "steps": 3}
        return [Configuration(preset="1m", **tiny)]
    order = [("124m", 50_304, 2048), ("1.5b", 131_136, 4096), ("350m", 50_304, 2048)]
    order += [("350m", 131_136, 4096), ("124m", 131_136, 4096), ("1.5b", 50_304, 2048)]
    presets, all_ids, lengths = ("124m", "350m", "1.5b"), (50_304, 131_136), (2048, 4096)
    every = [(preset, num_ids, length) for length in lengths for num_ids in all_ids for preset in presets]
    return [
        Configuration(
            preset=preset,
            num_ids=num_ids,
            sequence_length=length,
            batch_size=131_072 // length,
            micro_batch_size=32_768 // length,
            steps={"124m": 16, "350m": 12, "1.5b": 8}[preset],
        )
        for preset, num_ids, length in dict.fromkeys([*order, *every])
    ]


def parts(size: Size) -> Iterator[Part]:
    """Yield the parts."""
    if size == "full":
        yield Part(name="tests", command=_module("tests"), limit_s=100)
    yield Part(name="equality", command=[*_module("equality"), "--size", size], limit_s=60)
    yield Part(name="host", command=[*_module("host"), "--size", size], limit_s=60)
    speeds = [
        Part(name=one.name, command=[*_module("speed"), "--size", size, "--name", one.name], limit_s=110, needs_s=40)
        for one in configurations(size)
    ]
    modes = [
        Part(name=name, command=[*_module("modes"), "--size", size, "--name", name], limit_s=130, needs_s=40)
        for name, preset in MODES.items()
        if preset in {one.preset for one in configurations(size)}
    ]
    for speed, mode in zip(speeds, modes, strict=False):  # 124m, 1.5b
        yield from (speed, mode)
    yield from speeds[len(modes) : 3]
    yield Part(name="masking", command=[*_module("masking"), "--size", size], limit_s=40)
    yield from speeds[3:]
    if KNOWN_ANSWER.is_file() and size == "full":
        arguments = ["--device", "cuda", "--model", "30m", "--minutes", "{minutes}", "--output", "{output}"]
        yield Part(name="known-answer", command=[str(KNOWN_ANSWER), *arguments], limit_s=540, needs_s=60)


def _module(name: str) -> list[str]:
    return ["-m", f"benchmarks.gpu.{name}", "--output", "{output}"]


def command_line(part: Part, *, output: Path, seconds: float) -> list[str]:
    """Return the command of a part that has `seconds`, with this interpreter."""
    places = {"{output}": str(output), "{minutes}": f"{seconds / 60:.1f}"}
    return [sys.executable, *(places.get(word, word) for word in part.command)]
