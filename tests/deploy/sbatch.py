"""A stand-in for Slurm's sbatch: tasks are processes of this machine, all at once; it returns when they have ended.

`FAKE_SLURM` names a directory: a file `<job>.json` gets the exit codes of the job's tasks, `<job>_<task>.log` their
output. As Slurm does, it runs a copy of the script, in the directory and the environment of the caller.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

DIRECTIVES = re.compile(r"#SBATCH --(job-name|nodes|ntasks|cpus-per-task|mem|time|output)=\S+|#SBATCH --requeue")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parsable", action="store_true", required=True)
    parser.add_argument("--array", type=_numbers)
    parser.add_argument("--dependency", type=re.compile(r"afterany:(\d+)").fullmatch)
    parser.add_argument("script", type=Path)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    call = parser.parse_args()
    spool = Path(os.environ["FAKE_SLURM"])
    for line in call.script.read_text().splitlines():
        assert not line.startswith("#SBATCH") or DIRECTIVES.fullmatch(line), line
    if call.dependency is not None:
        assert (spool / f"{call.dependency[1]}.json").exists(), "the job has ended"
    job = 1001 + len(list(spool.glob("*.json")))
    script = spool / f"slurm_script_{job}"
    shutil.copyfile(call.script, script)
    tasks = call.array or [None]
    command = ["bash", str(script), *call.arguments]
    processes = {}
    for task in tasks:
        variables = {"SLURM_JOB_ID": str(job)}
        if task is not None:
            variables |= {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(len(tasks))}
        processes[task] = _start(command, variables, log=spool / f"{job}_{task or ''}.log")
    codes = {str(task or ""): process.wait() for task, process in processes.items()}
    (spool / f"{job}.json").write_text(json.dumps(codes))
    print(f"{job};cluster")


def _start(command: list[str], variables: dict[str, str], *, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(command, env={**os.environ, **variables}, stdout=file, stderr=subprocess.STDOUT)


def _numbers(text: str) -> list[int]:
    ranges = (part.partition("-") for part in text.partition("%")[0].split(","))
    return [number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)]


if __name__ == "__main__":
    main()
