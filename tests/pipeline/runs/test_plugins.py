"""A run with an annotator in a file beside the recipe: what is redone, checked and reported is as for built-in ones."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

import pytest

from colophon.pipeline.executors.handshake import Requirements, check_machine
from colophon.pipeline.runs.plan import Plan
from colophon.pipeline.runs.requirements import requirements
from tests.annotators.plugins import plugin_file, plugin_source
from tests.pipeline.project import (
    colophon,
    directories,
    quarantine,
    redone,
    resolved_recipe,
    run,
    snapshot,
    write_documents,
    write_tokenizer,
)

RECIPE = """
[input]
paths = ["documents.parquet"]
partition_bytes = 4000
[output]
path = "out"
[plugins]
files = ["mine.py", "other.py"]
[annotators.words]
[annotators.other]
[annotators.url]
[tokenizer]
path = "small.tiktoken"
pattern = "gpt2"
[pack]
sequence_length = 64
[layouts.words]
position = "prepend"
template = "{n_words}"
max_metadata_tokens = 8
[layouts.url]
position = "append"
template = "{n_other} {url_host}"
max_metadata_tokens = 8
"""
TEXT = "len(text.split())"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose recipe has two plugins, which are allowed, as working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLOPHON_PLUGINS", str(tmp_path))
    write_documents(Path("documents.parquet"), range(48))
    write_tokenizer(Path("small.tiktoken"))
    Path("recipe.toml").write_text(RECIPE)
    Path("mine.py").write_text(plugin_source())
    Path("other.py").write_text(plugin_source("other", name="Other"))
    return tmp_path


def edit(old: str, new: str) -> None:
    path = Path("mine.py")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_changed_file_redoes_what_it_annotated_and_nothing_else(place: Path) -> None:
    assert run().code == 0
    assert colophon("verify", "recipe.toml", "--deep").code == 0
    before = snapshot(Path("out"))
    edit(TEXT, "2 * len(text.split())")
    changed = run()
    assert changed.code == 2
    assert "out/annotations/words was written with other settings: annotator.code.sha256: " in changed.line
    assert "annotations/words" in colophon("verify", "recipe.toml").line
    outputs = json.loads(colophon("status", "recipe.toml", "--json").out)["outputs"]
    stale = {output for output, numbers in outputs.items() if numbers["stale"]}
    assert stale == {"annotations/words", "packed/words"}
    assert run("--rebuild").code == 0
    assert directories(redone(before, snapshot(Path("out")))) == {"annotations/words", "packed/words"}


def test_an_exception_on_a_document_quarantines_its_partition_with_the_line(place: Path) -> None:
    edit(TEXT, "len(text.split()) if 'SPECIAL' not in text else 1 // 0")
    edit("text):", "text):\n    text = text and text.replace('<|endoftext|>', 'SPECIAL')")
    called = run()
    assert called.code == 3, called.err
    line = 1 + next(i for i, text in enumerate(Path("mine.py").read_text().splitlines()) if "1 // 0" in text)
    reason = f"annotators.words: ZeroDivisionError: integer division or modulo by zero (mine.py:{line})"
    assert {entry.reason for entry in quarantine()} == {reason}
    assert {entry.stage for entry in quarantine()} == {"annotate, tokenize"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("return pa.record_batch", "return pa.table", "it returned a Table; expected a RecordBatch"),
        ("for text in texts]", "for text in texts[1:]]", ""),
    ],
)
def test_a_result_that_is_not_the_promised_one_is_named(place: Path, old: str, new: str, reason: str) -> None:
    edit(old, new)
    called = run("--strict")
    assert called.code == 1
    assert f": annotator words broke its contract: {reason}" in called.line


LOAD = "    def load(self):\n        {}\n\n    columns ="


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        ("    columns =", LOAD.format("open('/no/such')"), 1, "annotators.words: [Errno 2] No such file"),
        ("    columns =", LOAD.format("1 // 0  # here"), 1, "annotators.words: ZeroDivisionError: * (mine.py:HERE)"),
        ("return Words(name, ", "return Word(  # here\n", 2, "*: annotators.words: NameError: * (mine.py:HERE"),
        ("return Words(name", "return Words('x'", 2, "recipe.toml: annotators.words: Words.name must be the name"),
        ("def count", "raise OSError('now')  # here\ndef count", 2, "*: mine.py: OSError: now (mine.py:HERE"),
    ],
)  # fmt: skip
def test_an_error_before_the_first_document_is_one_line(place: Path, old: str, new: str, code: int, line: str) -> None:
    edit(old, new)
    here = [i for i, text in enumerate(Path("mine.py").read_text().splitlines(), start=1) if "# here" in text]
    called = run()
    assert called.code == code
    assert fnmatch(called.line, line.replace("HERE", f"{here[0] if here else 0}").replace("[", "[[]") + "*")
    if code == 2 and here:
        debugged = colophon("--debug", "run", "recipe.toml", "--executor", "inline").err
        assert f'File "{place}/mine.py", line {here[0]}, in ' in debugged


def test_an_annotator_that_calibrates_is_fitted_again_when_its_file_changes(place: Path) -> None:
    calibrating = """
    num_calibration_documents = 10
    fitted = None

    def calibrate(self, sample):
        return {"rows": sum(batch.num_rows for batch in sample)}

    def with_calibration(self, calibration):
        import copy
        fitted = copy.copy(self)
        fitted.settings = fitted.fitted = dict(calibration)
        return fitted

    columns ="""
    edit("    columns =", calibrating)
    edit("count(text) for", "self.fitted['rows'] for")
    assert "words: quantiles of 10 documents" in run("--set", "annotators.words.prefix=n").out
    assert "quantiles" not in run().out
    assert colophon("verify", "recipe.toml", "--deep").code == 0
    edit("sum(", "1 + sum(")
    assert "out/annotations/words was written with other settings: code.sha256" in run().line
    edit("1 + sum(", "no_sum(")
    assert run("--rebuild").line.startswith("annotators.words: NameError: name 'no_sum' is not defined (mine.py:")


def test_workers_get_the_files_and_need_what_they_import(place: Path) -> None:
    found = requirements(Plan(resolved_recipe()), ["annotate"])
    assert [plugin.name for plugin in found.plugins] == ["mine.py", "other.py"]
    assert found.modules == () and found.packages == ()
    assert check_machine(Requirements(plugins=found.plugins), probe="").lacking == ()
    assert requirements(Plan(resolved_recipe()), ["pack"]).plugins == ()
    unlike = plugin_file(place, "import not_on_this_node\n", name="unlike.py")
    wanted = Requirements(plugins=(unlike,), packages=(("pytest", "0.1"), ("no-such-package", "1.0")))
    assert check_machine(wanted, probe="").lacking == (
        f"it has pytest {pytest.__version__}, the driver 0.1",
        "it has no-such-package none, the driver 1.0",
        "unlike.py: ModuleNotFoundError: No module named 'not_on_this_node' (unlike.py:1)",
    )


def test_the_list_of_annotators_has_columns_and_origins(place: Path) -> None:
    listed = {a["name"]: a for a in json.loads(colophon("annotators", "recipe.toml", "--json").out)}
    assert listed["words"] == {
        "name": "words", "source": "mine.py", "reads": ["text"], "writes": ["n_words"], "required": [], "error": None,
    }  # fmt: skip
    assert (listed["url"]["source"], listed["url"]["reads"]) == ("built in", ["url"])
    assert listed["fasttext"]["required"] == ["model", "score"]
    shown = colophon("annotators", "recipe.toml").out
    assert "n_words" in shown and "mine.py" in shown
    assert "words" not in json.dumps(json.loads(colophon("annotators", "--json").out))
    edit("return Words(", "return Word(")
    assert "words: annotators.words: NameError: name 'Word' is not defined" in colophon("annotators", "recipe.toml").out


def test_a_submitted_recipe_has_its_plugins_uploaded(place: Path) -> None:
    paths = ("--set", "input.paths=/shared/documents.parquet", "--set", "output.path=/shared/out")
    options = ("--address", "http://127.0.0.1:1", "--no-install", *paths)
    Path(".gitignore").write_text("mine.py\n")
    called = colophon("submit", "recipe.toml", "--dry-run", *options)
    assert called.code == 0
    assert "  mine.py  " in called.out
