"""`make gpu`, tried on a CPU: the parts with tiny models, the time limits, the page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import equality, host, masking
from benchmarks.gpu.__main__ import RESULTS, exit_code, main
from benchmarks.gpu.modes import WAYS, contestants
from benchmarks.gpu.page import NOTHING, lines, page
from benchmarks.gpu.plan import MODES, Part, command_line, configurations, parts
from benchmarks.gpu.records import appender, read_records
from benchmarks.gpu.running import RUN, run_parts
from benchmarks.trainer.job import TrainingJob

torch.set_num_threads(1)  # for models this small, threads cost more time than they save

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
WRITES = "import sys; open(sys.argv[1], 'a').write('{\"a\": 1}\\n')"
HANGS = f"{WRITES}; open(sys.argv[1], 'a').write('{{\"a\"'); import signal; signal.pause()"
FAILS = "import sys; sys.exit('no such kernel')"


def part(name: str, code: str, *, limit_s: float = 60.0, needs_s: float = 0.0) -> Part:
    return Part(name=name, command=["-c", code, "{output}"], limit_s=limit_s, needs_s=needs_s)


def test_a_part_that_hangs_or_fails_keeps_its_records_and_does_not_stop_those_after_it(tmp_path: Path) -> None:
    chosen = [
        part("hangs", HANGS, limit_s=1.5),
        part("fails", FAILS),
        part("large", WRITES, needs_s=3600),
        part("works", WRITES),
    ]
    said: list[str] = []
    run_parts(chosen, output=tmp_path, minutes=5, log=said.append)
    ends = json.loads((tmp_path / RUN).read_text())["parts"]
    assert [ends[one.name]["end"] for one in chosen] == [
        "stopped after 2 s",
        "failed with exit code 1",
        "no time left",
        "complete",
    ]
    assert [exit_code([ends[one.name]["end"]]) for one in chosen] == [3, 1, 3, 0]
    assert exit_code([end["end"] for end in ends.values()]) == 1
    assert ends["fails"]["last_line"] == "no such kernel"
    assert read_records(tmp_path / "hangs.jsonl") == [{"a": 1}]  # without the half one
    assert read_records(tmp_path / "works.jsonl") == [{"a": 1}]
    assert [line.partition(":")[0] for line in said] == [one.name for one in chosen]
    run_parts(chosen[3:], output=tmp_path, minutes=5, log=said.append)
    assert read_records(tmp_path / "works.jsonl") == [{"a": 1}]  # not those of the run before too


def test_the_parts_measure_tiny_models_and_the_page_has_them(tmp_path: Path) -> None:
    equality.measure("tiny", device=CPU, write=appender(tmp_path / "equality.jsonl"))
    same = read_records(tmp_path / "equality.jsonl")
    assert {(one["documents_masked"], one["dtype"]) for one in same} == {
        (masked, dtype) for masked in (True, False) for dtype in ("float32", "bfloat16")
    }
    assert all(one["device"]["gradient"] < (1e-5 if one["dtype"] == "float32" else 5e-2) for one in same)
    assert all(one["device"] == one["cpu"] for one in same)  # the device is the CPU
    masking.measure("tiny", device=CPU, write=appender(tmp_path / "masking.jsonl"))
    host.measure("tiny", device=CPU, write=appender(tmp_path / "host.jsonl"))
    assert [one["step"] for one in read_records(tmp_path / "host.jsonl")] == [1, 2, 3, 4, 5, 6]
    write_speed(tmp_path)
    run = {"machine": {"cpu": "C", "cores": 2, "memory_gb": 8, "system": "L"}, "torch": "2", "date": "d", "minutes": 9}
    ended = {"equality": {"end": "complete"}, "tests": {"end": "failed with exit code 1", "last_line": "no kernel"}}
    run |= {"size": "tiny", "parts": ended, "gpu": {"name": "GPU X", "memory_gb": 80, "peak_tflops": 1000}}
    (tmp_path / RUN).write_text(json.dumps(run))
    shown = page(tmp_path).splitlines()
    assert shown == list(lines(run, tmp_path))
    assert shown[0] == "GPU X, 80 GB; torch 2; d; 9 minutes."
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in shown if line.startswith("| 124m, 50,304")
    ]
    assert rows[0][1:] == ["colophon", "400,000 (200,000–800,000)", "40.0%", "50.0 GB", ""]
    assert rows[1][1:] == ["plain loop", "200,000 (100,000–400,000)", "20.0%", "50.0 GB", "2.00 x"]
    assert rows[2][2:] == ["failed: out of memory", "", "", ""]
    assert sum(line.startswith(("| sdpa | yes", "| sdpa | no")) for line in shown) == 4
    assert "The first 3 of 6 steps compiled 0 graphs, those after them 0." in shown
    assert shown[-1] == (
        "Not measured, or not to the end: tests (failed with exit code 1: no kernel); "
        "host (not run); speed-1m-512-64 (not run); modes-1m (not run); masking (not run)."
    )


def test_the_page_has_the_ways_of_a_training_beside_the_first(tmp_path: Path) -> None:
    write = appender(tmp_path / "modes-124m.jsonl")
    for way, speed, loss, rows in (("layers compiled", 4e5, 2.0, None), ("searched", 5e5, 2.02, 12)):
        write(contestant=way, tokens_per_second=speed, memory_bytes=30e9, losses=[4.0, loss], rows_at_once=rows)
    write(contestant="float8", failed="no such type")
    run = {"machine": {}, "torch": "2", "date": "d", "minutes": 9, "size": "full", "parts": {}}
    run["gpu"] = {"name": "GPU X", "memory_gb": 80, "peak_tflops": 1000}
    (tmp_path / RUN).write_text(json.dumps(run))
    rows = [line.strip("| ").split(" | ") for line in page(tmp_path).splitlines() if line.startswith("| 124m")]
    assert rows == [
        ["124m", "layers compiled", "400,000", "1.00 x", "0.0e+00", "30.0 GB"],
        ["124m", "searched: 12", "500,000", "1.25 x", "1.0e-02", "30.0 GB"],
        ["124m", "float8", "failed: no such type"],
    ]


@pytest.mark.parametrize("name", MODES)
def test_each_way_of_a_training_has_valid_settings(name: str) -> None:
    sizes = {"preset": MODES[name], "num_ids": 512, "sequence_length": 64, "batch_size": 4, "micro_batch_size": 2}
    job = TrainingJob(**sizes, steps=3, warmup_steps=1, device="cuda", dtype="bfloat16", work="-")
    configs = []
    for module, *arguments in contestants(name).values():
        assert (module, arguments[0]) == ("benchmarks.trainer.ours", "documents")
        configs.append(job.config(document_masking=True, **json.loads(arguments[1])))
    assert configs[0] == job.config(document_masking=True)
    assert all(one != other for one, other in combinations(configs, 2))


def test_the_known_answer_has_the_options_that_the_plan_gives_it() -> None:
    (part,) = (part for part in parts("full") if part.name == "known-answer")
    script, *arguments = command_line(part, output=Path("out.jsonl"), seconds=90)[1:]
    code = Path(script).read_text()
    options = [word for word in arguments if word.startswith("--")]
    assert options == ["--device", "--model", "--minutes", "--output"]
    assert set(options) <= set(re.findall(r'add\("(--[\w-]+)"', code))
    assert f'"{arguments[arguments.index("--model") + 1]}": {{' in code
    assert arguments[arguments.index("--minutes") + 1] == "1.5"


def write_speed(output: Path) -> None:
    write = appender(output / "speed-124m-50304-2048.jsonl")
    measured = {"flops_per_token": 1e9, "memory_bytes": 50e9, "data_wait": 0.0, "losses": [1.0]}
    for name, speed in (("colophon", 4e5), ("plain loop", 2e5)):
        seconds = {"median": 1e5 / speed, "lowest": 5e4 / speed, "highest": 2e5 / speed, "values": []}
        write(contestant=name, tokens_per_second=speed, seconds_per_step=seconds, **measured)
    write(contestant="colophon, documents not masked", failed="out of memory")


def test_without_results_of_a_gpu_the_page_says_so(tmp_path: Path) -> None:
    assert page(tmp_path) == f"{NOTHING}\n"


def test_without_a_gpu_nothing_is_run_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for arguments, reason in (
        (["--output", str(tmp_path / "gpu")], "finds no GPU; --size tiny --output DIR tries the parts on a CPU"),
        (["--size", "tiny"], f"--size tiny needs an --output: {RESULTS} is for results of a GPU"),
        (
            ["--size", "tiny", "--part", "equalty", "--output", str(tmp_path / "gpu")],
            "unknown part 'equalty'; available: equality, host, ",
        ),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_page_of_speeds_has_the_results() -> None:
    shown = page(RESULTS).strip()
    assert shown in (ROOT / "docs/speed.md").read_text(), "docs/speed.md: paste `python -m benchmarks.gpu page`"


def test_all_twelve_configurations_are_planned_after_the_tests() -> None:
    names = [one.name for one in parts("full")]
    assert names[0] == "tests"
    assert len(set(names)) == len(names)
    speeds = [one for one in configurations("full") if one.name in names]
    assert len({(one.preset, one.num_ids, one.sequence_length) for one in speeds}) == 12
    assert {one.micro_batch_size * one.sequence_length for one in speeds} == {32_768}
    assert [one.preset for one in speeds[:3]] == ["124m", "1.5b", "350m"]
    order = [name for name in names if name.startswith(("speed", "modes"))][:5]
    assert order == [speeds[0].name, "modes-124m", speeds[1].name, "modes-1.5b", speeds[2].name]


@pytest.mark.slow
def test_a_whole_run_with_tiny_models(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--size", "tiny", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ends = json.loads((tmp_path / RUN).read_text())["parts"]
    assert {one["end"] for one in ends.values()} == {"complete"}
    speeds = read_records(tmp_path / "speed-1m-512-64.jsonl")
    assert [one.get("contestant") for one in speeds] == [
        "colophon",
        "plain loop",
        "colophon, documents not masked",
        None,
    ]
    assert speeds[-1]["largest_difference"] < 1e-3
    ways = read_records(tmp_path / "modes-1m.jsonl")
    assert [one["contestant"] for one in ways] == list(WAYS["modes-1m"])
    assert "it runs on CUDA only" in ways[1]["failed"]
    assert ways[2]["rows_at_once"] == 2
    assert ways[2]["losses"] == pytest.approx(ways[0]["losses"], rel=1e-5)
