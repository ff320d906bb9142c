"""Annotators of this package, of installed packages, of files and of code, and what identifies them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from colophon.annotators.base import Annotator, AnnotatorConfig, AnnotatorError, annotator_types
from colophon.annotators.registry import contract_problem, found, model_files, offers, origin_of, recorded_settings
from colophon.shards.common.digests import file_sha256
from tests.annotators.plugins import install, plugin_file, plugin_source


class Code(AnnotatorConfig):
    """An annotator that a Python program defines. Its qualified name is set by the test alone, not for all others."""

    type_name: ClassVar[str] = "in_code"

    def build(self, name: str) -> Annotator:
        raise NotImplementedError


Code.__qualname__ = "HiddenCode"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of installed packages."""
    root = tmp_path / "site-packages"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    yield root
    for path in root.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_an_installed_package_brings_an_annotator(packages: Path) -> None:
    entries = {"words": "word_counts:WordsConfig"}
    install(packages, "word_counts", version="1.2", entries=entries, source=plugin_source())
    among = offers()
    assert "word_counts" not in sys.modules, "a package is imported when it is used"
    assert found("url", among) is annotator_types()["url"]
    assert "word_counts" not in sys.modules
    config = found("words", among)
    assert config is not None
    origin = origin_of(config)
    assert (origin.description, origin.package) == ("word_counts 1.2", ("word_counts", "1.2"))
    sha256 = file_sha256(packages / "word_counts.py")
    assert origin.identity == {"package": "word_counts", "version": "1.2", "sha256": sha256}
    assert found("words", offers()) is config, "its class is not an annotator in code as well"


@pytest.mark.parametrize(
    ("entry", "value", "source", "line"),
    [
        ("url", "b1:WordsConfig", plugin_source("url"), "several annotators are named 'url': b1 1.0, built in"),
        ("words", "b2:Nothing", plugin_source(), "b2 1.0 (b2:Nothing): AttributeError: "),
        ("words", "b3:Words", plugin_source(), "b3 1.0 (b3:Words): is not a subclass of Annot"),
        ("words", "b4:X", "\nx = y\n", "b4 1.0 (b4:X): NameError: name 'y' is not defined (b4.py:2)"),
        ("other", "b5:WordsConfig", plugin_source(), "b5 1.0 (b5:WordsConfig): its type_name is not "),
    ],
)
def test_a_package_that_cannot_be_used_is_named(packages: Path, entry: str, value: str, source: str, line: str) -> None:
    install(packages, value.partition(":")[0], version="1.0", entries={entry: value}, source=source)
    with pytest.raises(AnnotatorError) as caught:
        found(entry, offers())
    assert str(caught.value).startswith(line)
    assert found("crawl", offers()) is annotator_types()["crawl"], "others are not concerned"


def test_a_name_of_a_package_and_a_file_is_ambiguous(packages: Path, tmp_path: Path) -> None:
    install(packages, "counts", version="2.0", entries={"words": "counts:WordsConfig"}, source=plugin_source())
    among = offers([plugin_file(tmp_path, plugin_source())])
    with pytest.raises(AnnotatorError, match=r"several annotators are named 'words': counts 2\.0, mine\.py"):
        found("words", among)


def test_names_of_files_are_their_own(tmp_path: Path) -> None:
    one, two = (plugin_file(tmp_path, plugin_source(), name=f"{name}.py") for name in ("one", "two"))
    with pytest.raises(AnnotatorError, match=r"two\.py: an annotator named 'words' exists: one\.py"):
        offers([one, two])
    with pytest.raises(AnnotatorError, match=r"three\.py: an annotator named 'url' exists: built in"):
        offers([plugin_file(tmp_path, plugin_source("url"), name="three.py")])
    assert found("words", offers()) is None, "a file of one recipe is not in another"


def test_a_class_in_code_is_an_annotator_if_workers_can_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found("in_code", offers()) is None
    monkeypatch.setattr(sys.modules[__name__], Code.__qualname__, Code, raising=False)
    assert found("in_code", offers()) is Code
    origin = origin_of(Code)
    assert (origin.description, origin.identity) == (f"module {__name__}", {"sha256": file_sha256(Path(__file__))})


def settings_of(source: str, root: Path, **keys: Any) -> dict[str, Any]:
    config = plugin_file(root, source).types()["words"].model_validate(keys)
    offered = found("words", offers([plugin_file(root, source)]))
    assert offered is type(config)
    return recorded_settings(config.build("mine"), config)


def test_code_settings_and_files_are_recorded_for_an_annotator_that_records_nothing(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("a")
    base = settings_of(plugin_source(), tmp_path, words=str(words))
    assert json.loads(json.dumps(base)) == base
    assert base["files"] == {"words": file_sha256(words)} and base["config"] == {"prefix": "n"}
    moved = words.rename(tmp_path / "moved.txt")
    assert settings_of(plugin_source(), tmp_path, words=str(moved)) == base, "its place does not count"
    assert settings_of(plugin_source() + "#\n", tmp_path, words=str(moved)) != base
    assert settings_of(plugin_source(), tmp_path, words=str(moved), prefix="m") != base
    moved.write_text("b")
    changed = settings_of(plugin_source(), tmp_path, words=str(moved))
    assert changed != base
    config = plugin_file(tmp_path, plugin_source()).types()["words"].model_validate({"words": str(moved)})
    assert model_files(config.build("mine"), config) == {str(moved): changed["files"]["words"]}


def test_settings_of_built_in_annotators_are_their_own() -> None:
    config = annotator_types()["url"]()
    annotator = config.build("url")
    assert recorded_settings(annotator, config) == recorded_settings(annotator, None) == annotator.settings


class Good(Annotator):
    name = "good"
    columns = ("text",)
    schema = pa.schema([("words", pa.int64())])

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"name": "other"}, "Good.name must be the name that build() was given, 'good'"),
        ({"schema": None}, "Good.schema must be a pyarrow schema of the output columns, each name once"),
        ({"schema": pa.schema([("a", "int8"), ("a", "int8")])}, "Good.schema must be a pyarrow schema of the"),
        (
            {"schema": pa.schema([("a", pa.dense_union([pa.field("x", "int8")]))])},
            "Good.schema has a type that Parquet cannot hold: ArrowNotImplementedError: ",
        ),
        ({"columns": "text"}, "Good.columns must be a tuple of the names of the columns that it reads, at least one"),
        ({"columns": ()}, "Good.columns must be a tuple"),
        ({"settings": {"x": {1}}}, "settings must be JSON values: TypeError: Object of type set is not JSON"),
    ],
)
def test_what_build_returns_keeps_the_contract(change: dict[str, Any], problem: str | None) -> None:
    annotator = Good()
    vars(annotator).update(change)
    line = contract_problem(annotator, Code(), name="good")
    assert line is None if problem is None else str(line).startswith(problem)


def test_what_build_returns_is_an_annotator() -> None:
    assert contract_problem(7, Code(), name="x") == "build() returned a int; expected an Annotator"
