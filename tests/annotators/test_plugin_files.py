"""A file of Python code becomes a module, the same one in every process."""

from __future__ import annotations

import pickle
import sys
import traceback
from pathlib import Path

import pyarrow as pa
import pytest

from colophon.annotators.base import AnnotatorError, annotator_types
from colophon.annotators.plugin_files import PluginFile, PluginModules
from colophon.pipeline.stages.annotation import AnnotateStage
from colophon.pipeline.storage.commits import Store
from tests.annotators.plugins import plugin_file, plugin_source

TEXTS = pa.record_batch({"text": ["a b", None]})


def test_a_file_defines_annotators_that_are_not_built_in(tmp_path: Path) -> None:
    source = plugin_source() + plugin_source("other", name="Other")
    types = plugin_file(tmp_path, source).types()
    assert list(types) == ["words", "other"]
    annotator = types["words"]().build("mine")
    assert annotator.annotate(TEXTS).to_pydict() == {"n_words": [2, None]}
    assert not {"words", "other"} & set(annotator_types())


def test_a_file_runs_once_and_an_edited_one_is_a_different_module(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    logged = f"\nwith open({str(tmp_path / 'log')!r}, 'a') as log: log.write('x')\n"
    first = plugin_file(tmp_path, plugin_source() + logged)
    assert first.types() == first.types() == PluginFile("mine.py", first.path, first.source).types()
    assert (tmp_path / "log").read_text() == "x"
    edited = plugin_file(tmp_path, plugin_source().replace("len(text.split())", "7") + logged)
    assert edited.module_name != first.module_name
    old, new = (file.types()["words"]().build("mine") for file in (first, edited))
    assert [a.annotate(TEXTS).column(0)[0].as_py() for a in (old, new)] == [2, 7]


def test_a_worker_without_the_file_unpickles_the_stage(tmp_path: Path) -> None:
    file = plugin_file(tmp_path, plugin_source())
    annotator = file.types()["words"]().build("mine")
    stage = AnnotateStage(Store(str(tmp_path)), (annotator,), (), (file,))
    pickled = pickle.dumps(stage)
    Path(file.path).unlink()
    del sys.modules[file.module_name]  # as in a process that has not seen it
    unpickled = pickle.loads(pickled)
    assert unpickled.plugins == (file,)
    assert unpickled.annotators[0].annotate(TEXTS).to_pydict() == {"n_words": [2, None]}
    assert type(unpickled.annotators[0]).__module__ in sys.modules


def test_a_stage_without_plugins_is_pickled_as_before(tmp_path: Path) -> None:
    stage = AnnotateStage(Store(str(tmp_path)), (), ())
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert pickle.loads(pickle.dumps(PluginModules(()))) == PluginModules(())


def test_a_traceback_shows_the_line_that_ran(tmp_path: Path) -> None:
    """Also if the file has been edited since, or is on a different machine."""
    file = plugin_file(tmp_path, plugin_source())
    annotator = file.types()["words"]().build("mine")
    Path(file.path).write_text("# edited\n" * 99)
    with pytest.raises(AttributeError) as caught:
        annotator.annotate(pa.record_batch({"text": [1]}))
    line = plugin_source().splitlines().index("    return None if text is None else len(text.split())") + 1
    shown = "".join(traceback.format_exception(caught.value))
    assert f'File "{file.path}", line {line}, in count\n    return None if text is None else len(text.split())' in shown


NAMELESS = plugin_source().replace('type_name = "words"', "pass")
ABSTRACT = plugin_source().replace("def build", "def built")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = (\n", "mine.py: SyntaxError: '(' was never closed (mine.py:1)"),
        ("\n\nimport no_such_module\n", "mine.py: ModuleNotFoundError: No module named 'no_such_module' (mine.py:3)"),
        ("def f():\n    g()\nf()\n", "mine.py: NameError: name 'g' is not defined (mine.py:2)"),
        ("raise ValueError('two\\nlines')", "mine.py: ValueError: two lines (mine.py:1)"),
        ("import sys\nsys.exit(0)", "mine.py: SystemExit: 0 (mine.py:2)"),
        ("x = 1\n", "mine.py: defines no annotator: no subclass of AnnotatorConfig with build()"),
        (ABSTRACT, "mine.py: defines no annotator: no subclass of AnnotatorConfig with build()"),
        (NAMELESS, "mine.py: WordsConfig needs a type_name, the name that recipes use"),
        (
            plugin_source() + plugin_source(name="Other"),
            "mine.py: WordsConfig and OtherConfig both have the type_name 'words'",
        ),
        ("from colophon.annotators.url import UrlConfig\n", "mine.py: defines no annotator"),
    ],
)
def test_an_error_of_a_file_is_one_line_with_its_place(tmp_path: Path, source: str, line: str) -> None:
    file = plugin_file(tmp_path, source)
    with pytest.raises(AnnotatorError) as caught:
        file.types()
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_file_that_failed_is_run_again(tmp_path: Path) -> None:
    file = plugin_file(tmp_path, "raise ValueError")
    for _ in range(2):
        with pytest.raises(AnnotatorError, match="ValueError"):
            file.module()
    assert file.module_name not in sys.modules


def test_bytes_that_are_no_text_are_no_python(tmp_path: Path) -> None:
    with pytest.raises(AnnotatorError, match=r"mine\.py: (SyntaxError|ValueError)"):
        PluginFile("mine.py", str(tmp_path / "mine.py"), b"\xff\x00\n").module()
