"""The command line itself: help with examples, fast start, and no traceback without --debug."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from colophon import __version__
from colophon.pipeline import cli
from colophon.pipeline.errors import InputError, UsageError
from colophon.shards.common.errors import ColophonError, ExitCode, ShardError
from tests.pipeline.project import colophon, run

ROOT = Path(__file__).parents[3]
COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
SLOW_MODULES = ("torch", "ray", "datatrove", "polars", "pyarrow", "pydantic", "numpy", "fasttext", "tiktoken")


def test_the_commands_exist() -> None:
    assert set(COMMANDS) >= {
        *("run", "annotate", "tokenize", "pack", "train", "export", "inspect", "verify", "submit", "recipes"),
        *("train-classifier", "train-tokenizer"),
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_help_with_an_example_of_itself(command: str) -> None:
    called = colophon(command, "--help")
    assert (called.code, called.err) == (0, "")
    text = re.sub(r"[│\s]+", " ", called.out)
    assert "Usage: " in text
    example = re.search(r"Example: (colophon .*)", text)
    assert example is not None
    assert example[1].split()[1] == command
    assert colophon(command, "-h").out == called.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_an_example_exist(command: str) -> None:
    text = re.sub(r"[│\s]+", " ", colophon(command, "--help").out)
    example, _, rest = text.partition("Example: ")[2].partition("─")
    for option in re.findall(r"--[a-z-]+", example):
        assert option in rest


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_and_argument_has_a_sentence_of_help(command: str) -> None:
    """A sentence that names the thing: not `Of the weights`, `What is scored`, `Who reads it`."""
    described = typer.main.get_command(cli.app).commands[command]  # type: ignore[attr-defined]
    texts = {parameter.name: parameter.help or "" for parameter in described.params} | {"": described.help}
    for name, text in texts.items():
        assert re.match(r"(?!Of |What |Who )[A-Z]", text), f"{command} {name}: {text!r}"
        assert name == "" or text.endswith("."), f"{command} {name}: {text!r}"


def test_help_lists_every_command(project: Path) -> None:
    out = colophon("--help").out
    assert all(f" {command} " in out for command in COMMANDS)
    assert colophon().out.strip() == out.strip()


def test_help_and_version_import_nothing_slow() -> None:
    program = (
        "import sys; from colophon.pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {SLOW_MODULES!r} if name in sys.modules], file=sys.stderr)"
    )
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", program, option], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert done.stderr == "[]\n"
        assert done.stdout


def test_the_version_is_the_packages() -> None:
    assert colophon("--version").out == f"colophon {__version__}\n"


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("trian", "no such command 'trian'. Did you mean 'train', 'trace'\\? See `colophon --help`"),
        ("--nonsense", "no such option: --nonsense. See `colophon --help`"),
        ("run", "run: missing argument "),
        ("run a.toml b.toml", r"run: got unexpected extra argument\S* \(b.toml\). See `colophon run --help`"),
        ("run a.toml recipe.toml", ".*If they are the files of one pattern, quote the pattern. See"),
        ("run a.toml" + " recipe.toml" * 99, ".{200,300}quote the pattern. See `colophon run --help`$"),
        ("run --nonsense", "run: no such option: --nonsense"),
        ("run --set", "run: option '--set' requires an argument"),
        ("run x --set a=1 https://me:pa55@e.org/", "run: .*https://[^:]*@e.org/"),
        ("run x --executor foo", "run: --executor: 'foo' is not one of 'auto', 'local', 'ray', 'inline'$"),
        ("convert x --layout a --output b --to foo", "convert: --to: 'foo' is not one of 'megatron', 'mds', 'npy'"),
        ("convert x --layout a --output b", "convert: missing option '--to'. Choose from: megatron, mds, npy, "),
        ("evaluate x --name a --documents 0", "evaluate: --documents: must be greater than or equal to 1, got '?0'?$"),
        ("trace x --name a --step 1.5", "trace: --step: must be a whole number, got '1.5'$"),
        ("plot recipe.toml --to .", "--to: . is a directory. Give the path of a file$"),
        (
            "inspect recipe.toml --sequence 3",
            "--sequence and --tokens are of a layout. Add --layout; available: plain, ",
        ),
        ("run data", "data is a directory; a recipe is a TOML file. `colophon init FILES` writes one$"),
    ],
)
def test_wrong_arguments_are_one_line(project: Path, call: str, line: str) -> None:
    called = colophon(*call.split())
    assert (called.code, called.out) == (2, "")
    assert re.match(line, called.line)
    assert "pa55" not in called.line


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("a wrong key"), ExitCode.USAGE, "a wrong key"),
        (ColophonError("--strict: x"), ExitCode.FAILED, "--strict: x"),
        (InputError("broken"), ExitCode.FAILED, "broken"),
        (ShardError("no layout"), ExitCode.USAGE, "no layout"),
        (
            OSError(errno.ENOSPC, "Full", "out/.report.html.0123456789ab.tmp"),
            ExitCode.FAILED,
            "out/report.html: No space left on device. Free space there, or choose another place, and run the same "
            "command again",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "none/x"),
            ExitCode.FAILED,
            "none/x: No such file or directory. Check the path",
        ),
        (
            UnicodeEncodeError("utf-8", "recipe\udce9", 6, 7, "surrogates not allowed"),
            ExitCode.FAILED,
            "UnicodeEncodeError: 'utf-8' codec can't encode character '\\udce9' in position 6: surrogates not allowed "
            "(`colophon --debug ...` prints the traceback)",
        ),
        (
            UnicodeEncodeError("utf-8", "recipe.toml", 6, 7, "surrogates not allowed"),
            ExitCode.USAGE,
            "an argument is not UTF-8: 'recipe.toml'. Convert it",
        ),
        (
            OSError(errno.ECHILD, "No child"),
            ExitCode.FAILED,
            "ChildProcessError: [Errno 10] No child (`colophon --debug ...` prints the traceback)",
        ),
        (
            ValueError("first\nsecond"),
            ExitCode.FAILED,
            "ValueError: first (`colophon --debug ...` prints the traceback)",
        ),
        (
            MemoryError(),
            ExitCode.FAILED,
            "MemoryError: the memory or the threads of this process are used up. Raise its limits (`ulimit -v`, "
            "`ulimit -u`), or set fewer ray.num_workers",
        ),
        (EOFError(), ExitCode.FAILED, "RuntimeError: EOFError (`colophon --debug ...` prints the traceback)"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to resume"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_one_line_and_its_exit_code(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("colophon.pipeline.runs.run.Run.execute", fail)
    called = run()
    assert called.code == code
    assert called.line == line


def test_a_working_directory_that_is_gone_is_one_line(project: Path) -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    Path("../gone").rmdir()
    try:
        called = colophon("status", "../recipe.toml")
    finally:
        os.chdir(project)
    assert (called.code, called.line) == (2, "the working directory no longer exists. Change to another")


def test_a_user_without_a_home_directory_gets_a_name_for_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> object:
        raise KeyError(number)

    monkeypatch.setenv("HOME", "restored")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert colophon("--version").code == 0
    assert Path.home() == Path("/nonexistent")


def test_debug_shows_the_traceback_and_the_line(project: Path) -> None:
    called = colophon("--debug", "run", "missing.toml")
    assert called.code == 2
    assert "Traceback (most recent call last)" in called.err
    assert called.err.splitlines()[-1].startswith("colophon: no recipe file missing.toml")


@pytest.mark.parametrize(
    "call",
    [
        "run recipe.toml --set output.path=LINK",
        "run LINK",
        "run recipe.toml --set input.paths=LINK/*.parquet",
        "run recipe.toml --set tokenizer.path=LINK/own.tiktoken",
        "train-tokenizer --input data --vocabulary-size 300 --output LINK/own.tiktoken",
        "init data --to LINK/recipe.toml",
    ],
)
@pytest.mark.parametrize("link", ["gone", "circle"])
def test_a_link_that_leads_nowhere_is_named(project: Path, call: str, link: str) -> None:
    Path("gone").symlink_to("not/there")
    Path("circle").symlink_to("circle")
    called = colophon(*call.replace("LINK", link).split())
    assert called.code == 2
    assert re.search(rf"{link}.*a link (whose|that) .*: {'not/there' if link == 'gone' else link}", called.line)
    assert "--debug" not in called.line


@pytest.mark.parametrize("command", ["run", "annotate", "tokenize", "pack"])
def test_commands_of_stages_print_the_summary(project: Path, command: str) -> None:
    if command == "pack":
        assert colophon("annotate", "recipe.toml", "--executor", "inline").code == 0
        assert colophon("tokenize", "recipe.toml", "--executor", "inline").code == 0
    called = colophon(command, "recipe.toml", "--executor", "inline")
    assert (called.code, called.err) == (0, "")
    assert "200 documents of 3 files" in called.out
    passes = json.loads(Path("out/report/summary.json").read_text())["passes"]
    assert list(passes) == (["annotate, tokenize", "pack"] if command == "run" else [command])


def test_an_unknown_training_run_is_an_error_that_lists_the_choices(project: Path) -> None:
    called = colophon("train", "recipe.toml", "--name", "large")
    assert called.code == 2
    assert called.line == "recipe.toml: no [train.large]; available: tiny"


def test_training_before_packing_is_one_line(project: Path) -> None:
    called = colophon("train", "recipe.toml")
    assert called.code == 2
    assert called.line == "out/manifest.json does not exist: out is not the output of a finished run"


def test_a_tokenizer_is_trained_on_the_input_and_used(project: Path) -> None:
    called = colophon(
        "train-tokenizer", "--input", "data/*.parquet", "--output", "own.tiktoken", "--vocabulary-size", "300"
    )
    assert (called.code, called.err) == (0, "")
    assert called.out.startswith("own.tiktoken: 300 tokens, trained on 191 texts, ")
    text = Path("recipe.toml").read_text().replace('path = "small.tiktoken"\npattern = "gpt2"', 'path = "own.tiktoken"')
    Path("recipe.toml").write_text(text)
    assert run().code == 0
    assert colophon("verify", "recipe.toml").code == 0


def test_a_classifier_is_trained_tested_and_used(project: Path) -> None:
    rows = [{"text": "the reader and value of column", "label": "high"}, {"text": "nothing läuft in", "label": "low"}]
    Path("labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 30))
    called = colophon(
        *("train-classifier", "--train", "labelled.jsonl", "--test", "labelled.jsonl", "--output", "models/q.bin"),
        *("--setting", "dim=4", "--setting", "buckets=100", "--setting", "min_count=1"),
    )
    assert (called.code, called.err) == (0, "")
    assert "models/q.bin: " in called.out
    assert Path("models/q.bin.json").is_file()
    annotator = "annotators.q={ type = 'fasttext', model = 'models/q.bin', score = { probability_of = 'high' } }"
    assert run("--set", annotator).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train", "none.jsonl"), "input.paths: none.jsonl: no such file"),
        (("--train", "data/part-0.parquet"), "no column 'label'; columns: text, id, "),
        (("--train", "data/part-0.parquet", "--setting", "dims=3"), "--setting: dims: unknown key; available: "),
        (("--train", "data/part-0.parquet", "--normalize", "lower"), "--normalize lower: write key=value"),
    ],
)
def test_wrong_options_of_a_classifier_are_one_line(project: Path, arguments: tuple[str, ...], message: str) -> None:
    called = colophon("train-classifier", "--output", "q.bin", *arguments)
    assert called.code == 2
    assert message in called.line
    assert not Path("q.bin").exists()
