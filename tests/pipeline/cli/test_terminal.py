"""Showing never decides over the work, and text never controls the terminal."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.pipeline.cli.terminal import GuardedStream, make_console
from colophon.pipeline.errors import printable
from tests.pipeline.project import colophon, document, manifest

ROOT = Path(__file__).parents[3]
COMMAND = f"{sys.executable} -m colophon"
RUN = f"{COMMAND} run recipe.toml --executor inline"
FULL = "colophon: stdout cannot be written: No space left on device; the command continues"
STATUS = f"{COMMAND} status recipe.toml"


def shell(line: str, **environment: str) -> tuple[str, str, str]:
    """The exit code of the first command of a line of bash, its stdout and its stderr."""
    ended = subprocess.run(
        ["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}} > code"],
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )
    return Path("code").read_text().strip(), ended.stdout.decode("latin-1"), ended.stderr.decode("latin-1")


@pytest.mark.parametrize(
    ("line", "environment", "note"),
    [
        (f"{RUN} | true", {}, ""),
        (f"{RUN} > /dev/full", {}, FULL),
        (f"{RUN} <&- >&- 2>&-", {}, ""),
        (RUN, {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}, ""),
    ],
)
def test_a_run_completes_whatever_becomes_of_its_output(
    project: Path, line: str, environment: dict[str, str], note: str
) -> None:
    Path("data/part-1.parquet").unlink()
    Path("data/part-2.parquet").write_bytes(b"")
    code, out, err = shell(line, **environment)
    assert (code, err.strip()) == ("3", note)
    assert len(manifest().quarantine) == 1
    if line == RUN:
        assert "annotate, tokenize: " in out
        assert out.isascii() and "\nlayouts\n" in out


def test_what_only_shows_ends_quietly_when_its_reader_has_gone(finished: Path) -> None:
    assert shell(f"{STATUS} | true") == ("0", "", "")
    assert shell(f"{COMMAND} inspect recipe.toml --layout plain | true") == ("0", "", "")
    assert shell(f"{COMMAND} --help | true") == ("0", "", "")
    assert shell(f"{STATUS} >&-") == ("0", "", "")
    for command in (STATUS, f"{RUN} --dry-run --no-probe"):
        assert shell(f"{command} > /dev/full") == ("1", "", f"{FULL}\n")


def test_training_continues_without_a_reader(finished: Path) -> None:
    assert shell(f"{COMMAND} train recipe.toml | true") == ("0", "", "")
    assert Path("out/training/tiny/metrics.jsonl").is_file()


def test_a_failed_stream_is_given_up_once() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        stream = GuardedStream(pipe, name="stderr")
        for _ in range(3):
            assert stream.write("x" * 100_000) == 100_000
            stream.flush()
        assert isinstance(stream.failure, BrokenPipeError)
    closed = io.StringIO()
    closed.close()
    stream = GuardedStream(closed, name="stderr")
    assert stream.write("x") == 1
    assert stream.failure is not None


EVIL = "\x1b[2J\x1b]0;t\x07\x9b31m\r\x08\u202e\u2066[red]:smile:"
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_printable_escapes_what_controls_a_terminal_and_nothing_else() -> None:
    shown = printable(EVIL)
    assert not CONTROLS.search(shown)
    assert shown.startswith(r"\x1b[2J\x1b]0;t\x07\x9b31m\r\x08\u202e\u2066[red]:smile:")
    for text in ("a\tb\nc", "漢字\u3000かな", "x\u00a0y", "👩\u200d👩\u200d👧", "می\u200cخواهم", "\ue000"):
        assert printable(text) == text
    assert printable("\udcff\U000e0041\u2028") == r"\udcff\U000e0041\u2028"


@pytest.fixture
def evil(finished: Path) -> Path:
    """A finished project with hostile names and values in the input, the manifest, the lock and a recipe."""
    rows = [{**document(n), "text": EVIL, "url": f"https://h.example/{EVIL}", "id": EVIL} for n in range(9)]
    Path("evil").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), f"evil/a{EVIL}.parquet")
    Path(f"evil/{EVIL}.parquet").write_bytes(b"")
    Path("evil.toml").write_text(
        Path("recipe.toml").read_text().replace("data/*", "evil/*").replace('"out"', '"evil-out"')
    )
    Path("labels.jsonl").write_text(
        "".join(json.dumps({"text": f"w{n % 2} x", "label": f"{EVIL}{n % 2}"}) + "\n" for n in range(40))
    )
    return finished


ROUTES: dict[str, Sequence[str]] = {
    "file names in a plan": ("run", "evil.toml", "--dry-run"),
    "documents and file names in a run": ("run", "evil.toml", "--executor", "inline"),
    "a document": ("inspect", "evil.toml", "--document", "0"),
    "a sequence": ("inspect", "evil.toml", "--layout", "prepend-url"),
    "file names in the status": ("status", "evil.toml"),
    "the status as JSON": ("status", "evil.toml", "--json"),
    "checks": ("verify", "evil.toml"),
    "a directory": ("export", "evil.toml", "--to", f"x{EVIL}"),
    "a column": ("run", "recipe.toml", "--set", f"input.columns.text={json.dumps(EVIL)}"),
    "a key of [input.columns]": ("run", "recipe.toml", "--set", f"input.columns={{ {json.dumps(EVIL)} = 'x' }}"),
    "a value": ("run", "recipe.toml", "--set", f"pack.method={json.dumps(EVIL)}"),
    "a key": ("run", "recipe.toml", "--set", f"{EVIL}=1"),
    "a path": ("run", "recipe.toml", "--set", f"input.paths={json.dumps([EVIL])}"),
    "a field": ("run", "recipe.toml", "--set", f"layouts.prepend-url.template={json.dumps('{' + EVIL + '}')}"),
    "a tokenizer": ("run", "recipe.toml", "--set", f"tokenizer={{ path = {json.dumps(EVIL + '.json')} }}"),
    "a recipe": ("run", f"{EVIL}.toml"),
    "a layout": ("inspect", "recipe.toml", "--layout", EVIL),
    "a training run": ("train", "recipe.toml", "--name", EVIL),
    "a metadata field": ("generate", "recipe.toml", "--name", "tiny", "--meta", f"{EVIL}=1"),
    "an argument": ("status", "recipe.toml", EVIL),
    "an option": ("status", "recipe.toml", f"--x{EVIL}"),
    "labels": ("train-classifier", "--train", "labels.jsonl", "--test", "labels.jsonl", "--output", f"{EVIL}.bin"),
    "an error with a traceback": ("--debug", "run", f"{EVIL}.toml"),
}


def test_no_route_brings_control_characters_to_the_terminal(evil: Path) -> None:
    found = {}
    for route, arguments in ROUTES.items():
        called = colophon(*arguments)
        text = called.out + called.err
        assert text
        found[route] = CONTROLS.findall(text)
    assert {route: controls for route, controls in found.items() if controls} == {}


def test_state_files_bring_none_either(finished: Path) -> None:
    edited = json.loads(manifest().model_dump_json())
    edited["partitions"][0]["source"] = EVIL
    edited["quarantine"] = [{"source": EVIL, "stage": EVIL, "reason": EVIL, "partition": "x"}]
    Path("out/manifest.json").write_text(json.dumps(edited))
    Path("out/quarantine.jsonl").write_text(json.dumps(edited["quarantine"][0]) + "\n")
    for command in (["status"], ["verify"], ["inspect"], ["evaluate", "--name", "tiny"]):
        called = colophon(command[0], "recipe.toml", *command[1:])
        assert not CONTROLS.findall(called.out + called.err), command
    assert EVIL.encode("unicode_escape").decode()[:8] in colophon("status", "recipe.toml").out


def test_a_terminal_gets_colours_of_ours_and_none_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = os.openpty()
    monkeypatch.setenv("TERM", "xterm-256color")
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr("sys.stdout", GuardedStream(terminal, name="stdout"))
        console = make_console()
        assert console.is_terminal
        console.print(EVIL, style="red", highlight=False)
        sys.stdout.write(f"\x1b[1mbold\x1b[0m {EVIL}\n")
        sys.stdout.flush()
        shown = ""
        while "bold" not in shown:  # what was written is in the terminal's buffer; one read may give a part
            shown += os.read(master, 10_000).decode()
    os.close(master)
    assert shown.count("\x1b[31m") == 1
    assert "\x1b[1mbold\x1b[0m" in shown
    assert "\x1b[2J" not in shown and "\x9b" not in shown and "\x08" not in shown and "\u202e" not in shown


def test_commands_print_through_the_terminal_alone() -> None:
    """`typer.echo`, `click.echo`, `print` and `Console` would go round the guard."""
    sources = {path: ast.parse(path.read_text()) for path in (ROOT / "pipeline/cli").glob("*.py")}
    names = {"print", "Console", "typer.echo", "typer.secho", "click.echo"}
    calls = {
        f"{path.name}: {ast.unparse(node.func)}"
        for path, tree in sources.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    }
    assert calls == set()
