"""Plugin files and installed packages of tests."""

from __future__ import annotations

from pathlib import Path

from colophon.annotators.plugin_files import PluginFile

PLUGIN = """
import pyarrow as pa
from colophon.annotators.base import Annotator, AnnotatorConfig

class {name}Config(AnnotatorConfig):
    type_name = "{type}"
    path_fields = ("words",)
    prefix: str = "n"
    words: str | None = None

    def build(self, name):
        return {name}(name, self)

class {name}(Annotator):
    columns = ("text",)

    def __init__(self, name, config):
        self.name = name
        self.schema = pa.schema([(f"{{config.prefix}}_{type}", pa.int64())])

    def annotate(self, batch):
        texts = batch.column("text").to_pylist()
        return pa.record_batch([pa.array([count(text) for text in texts], pa.int64())], schema=self.schema)

def count(text):
    return None if text is None else len(text.split())
"""
"""An annotator without `settings`; `{name}` is its class, `{type}` the name that recipes use."""


def plugin_source(type_name: str = "words", *, name: str = "Words") -> str:
    """The code of an annotator that counts words, its file's first line empty."""
    return PLUGIN.format(type=type_name, name=name)


def plugin_file(root: Path, source: str, *, name: str = "mine.py") -> PluginFile:
    """Write a file and read it as a plugin."""
    path = root / name
    path.write_text(source, encoding="utf-8")
    return PluginFile(name, str(path), path.read_bytes())


def install(root: Path, package: str, *, version: str, entries: dict[str, str], source: str) -> None:
    """Write a package of one module as pip installs it; `root` must be in `sys.path`."""
    (root / f"{package}.py").write_text(source, encoding="utf-8")
    info = root / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = (f"{name} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text("[colophon.annotators]\n" + "".join(lines))
