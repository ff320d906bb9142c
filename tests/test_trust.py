"""Untrusted files: models, shards, checkpoints, recipes. `SECURITY.md` names these tests."""

from __future__ import annotations

import ast
import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_file import read_header, read_layout
from colophon.pipeline import cli
from colophon.pipeline.storage.commits import Store
from colophon.shards.arrow_files import read_table, write_table
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import Manifest, OutputManifest
from colophon.shards.reader import PackedDataset
from colophon.shards.record_table import RecordTable
from tests.pipeline.project import RECIPE, colophon, manifest, run, write_documents, write_project
from tests.shards.cases import Case, documents_of, make_layout

ROOT = Path(__file__).parents[1]
PACKAGES = ("annotators", "pipeline", "recipes", "shards", "trainer")


class Exploit:
    """Makes a directory when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


class TestFastTextFiles:
    """A model file with wrong numbers gives an error of one line, before memory is allocated by them."""

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"magic": 793712315}, "its magic number is missing"),
            ({"version": 2**31 - 1}, "format version 2147483647"),
            ({"dim": -1}, "invalid settings: dim -1, "),
            ({"dim": 2**31 - 1}, "its input matrix is 7 x 2, not 7 x 2147483647"),
            ({"loss": 99}, "invalid settings: dim 2, wordNgrams 2, loss 99, bucket 4, minn 0, maxn 0"),
            ({"word_ngrams": 2**31 - 1}, "invalid settings: dim 2, wordNgrams 2147483647, "),
            ({"max_chars": 2**31 - 1}, "invalid settings: dim 2, "),
            ({"min_chars": 2**31 - 1}, "invalid settings: dim 2, "),
            ({"buckets": 2**31 - 1}, "its input matrix is 7 x 2, not 2147483650 x 2"),
            ({"buckets": -5}, "invalid settings: dim 2, wordNgrams 2, loss 3, bucket -5, "),
            ({"sizes": (2**31 - 1, 2**31 - 3, 2)}, "it is cut short"),
            ({"sizes": (5, 2**31 - 1, 2)}, "invalid dictionary sizes: 5 entries, 2147483647 words, 2 labels, "),
            ({"sizes": (-1, -3, 2)}, "invalid dictionary sizes: -1 entries, -3 words, "),
            ({"sizes": (5, 7, -2)}, "invalid dictionary sizes: 5 entries, 7 words, -2 labels, "),
            ({"sizes": (500, 498, 2)}, "it is cut short"),
            ({"sizes": (9, 7, 2)}, "its dictionary does not list words, then labels"),
            ({"num_tokens": -1}, "invalid dictionary sizes: 5 entries, 3 words, 2 labels, -1 tokens, "),
            ({"num_pruned": 2**62}, "it is cut short"),
            (
                {"num_pruned": -2},
                "invalid dictionary sizes: 5 entries, 3 words, 2 labels, 10 tokens, -2 pruned ",
            ),
            ({"input_shape": (2**62, 2)}, "it is cut short"),
            ({"input_shape": (2**33, 2**33)}, "it is cut short"),
            ({"input_shape": (-7, -2)}, "a matrix has a negative size"),
            ({"output_shape": (2**40, 2)}, "it is cut short"),
            ({"output_shape": (1, 4)}, "its output matrix is 1 x 4, not 2 x 2"),
            ({"loss": 1, "label_counts": (0, 0)}, "the counts of its labels must be positive and descend"),
            ({"loss": 1, "label_counts": (2**62, 2**62)}, "the counts of its labels must be positive and descend"),
            ({"loss": 1, "label_counts": (1, 2)}, "the counts of its labels must be positive and descend"),
        ],
    )
    def test_a_wrong_number_is_refused_before_memory_is_allocated(
        self, changes: dict[str, Any], reason: str, tmp_path: Path
    ) -> None:
        assert f"not a usable fastText model: {reason}" in refusal(tmp_path, ModelFile(**changes))

    def test_the_same_file_with_right_numbers_is_read(self, tmp_path: Path) -> None:
        assert read_header(ModelFile().write(tmp_path)).labels == ("__label__a", "__label__b")
        pruned = read_layout(ModelFile(buckets=9, pruned=((8, 0), (3, 1))).write(tmp_path))
        assert (pruned.header.buckets, pruned.hash_buckets) == (2, 9)
        assert read_header(ModelFile(codes=True).write(tmp_path)).quantized

    @pytest.mark.parametrize("pair", [(9, 0), (-1, 0), (0, 2), (0, -1), (2**31 - 1, 2**31 - 1)])
    def test_pruned_ngrams_outside_of_the_matrix(self, pair: tuple[int, int], tmp_path: Path) -> None:
        file = ModelFile(buckets=9, pruned=((8, 0), pair))
        assert "its pruned n-grams point outside of its matrix" in refusal(tmp_path, file)

    def test_hashes_that_would_fill_memory(self, tmp_path: Path) -> None:
        file = ModelFile(buckets=2**31 - 1, pruned=((8, 0), (3, 1)))
        assert "it would unpack to 8.6 GB" in refusal(tmp_path, file)

    def test_codes_that_would_fill_memory(self, tmp_path: Path) -> None:
        """One byte a row encodes as many floats as the matrix has columns."""
        file = ModelFile(codes=True, dim=2000, buckets=400_000)
        assert "it would unpack to 3.2 GB" in refusal(tmp_path, file)

    @pytest.mark.parametrize(
        "quantizer", [(3, 1, 2, 2), (2, 0, 2, 2), (2, 2**31 - 1, 2, 2), (2, 1, 1, 2), (2, 1, 2, -2), (2, 2, 2, 2)]
    )
    def test_a_quantizer_of_other_columns(self, quantizer: tuple[int, int, int, int], tmp_path: Path) -> None:
        file = ModelFile(codes=True, quantizer=quantizer)
        assert "a quantized matrix of 2 columns has invalid parts: " in refusal(tmp_path, file)

    @pytest.mark.parametrize("num_codes", [0, 6, 8, 2**31 - 1, -1])
    def test_codes_of_another_number_than_rows(self, num_codes: int, tmp_path: Path) -> None:
        assert "not a usable fastText model" in refusal(tmp_path, ModelFile(codes=True, num_codes=num_codes))

    def test_any_code_is_a_centroid(self, tmp_path: Path) -> None:
        """A code is a byte and a quantizer has 256 centroids, so none can be out of range."""
        path = ModelFile(codes=True, code=255).write(tmp_path)
        probabilities = FastTextModel(path, cached=False).probabilities(pa.array(["w0 w1 w2"]))
        assert np.isfinite(probabilities).all()

    @given(st.data())
    def test_any_number_is_refused_or_fits_the_file(self, tmp_path_factory: Any, data: st.DataObject) -> None:
        numbers = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-2, 12), st.just(2**31 - 1))
        fields = ("dim", "word_ngrams", "min_chars", "max_chars", "buckets", "loss")
        changes: dict[str, Any] = {name: data.draw(numbers) for name in data.draw(st.sets(st.sampled_from(fields)))}
        if data.draw(st.booleans()):
            wide = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 12)
            changes |= {name: data.draw(wide) for name in ("num_tokens", "num_pruned")}
            changes |= {name: (data.draw(wide), data.draw(wide)) for name in ("input_shape", "output_shape")}
        path = replace(ModelFile(codes=data.draw(st.booleans())), **changes).write(tmp_path_factory.getbasetemp())
        with LittleMemory():
            try:
                header = read_header(path)
            except AnnotatorError as error:
                assert "\n" not in str(error)
            else:
                assert header.dim * len(header.labels) < path.stat().st_size


@dataclass(frozen=True)
class ModelFile:
    """A fastText model written by hand: three words, two labels, two columns; every number can be replaced."""

    magic: int = 793712314
    version: int = 12
    dim: int = 2
    word_ngrams: int = 2
    loss: int = 3
    buckets: int = 4
    min_chars: int = 0
    max_chars: int = 0
    sizes: tuple[int, int, int] = (5, 3, 2)
    num_tokens: int = 10
    label_counts: tuple[int, int] = (2, 1)
    pruned: tuple[tuple[int, int], ...] | None = None
    num_pruned: int | None = None
    input_shape: tuple[int, int] | None = None
    output_shape: tuple[int, int] | None = None
    codes: bool = False
    code: int = 7
    num_codes: int | None = None
    quantizer: tuple[int, int, int, int] | None = None

    def write(self, directory: Path) -> Path:
        path = directory / "model.bin"
        path.write_bytes(b"".join([self._head(), self._dictionary(), self._matrix(), self._output()]))
        return path

    @property
    def _columns(self) -> int:
        return self.dim if 0 < self.dim < 10_000 else 2

    @property
    def _rows(self) -> int:
        extra = 4 if not 0 <= self.buckets < 10**6 else self.buckets
        return 3 + (extra if self.pruned is None else len(self.pruned))

    def _head(self) -> bytes:
        numbers = (self.dim, 5, 5, 1, 5, self.word_ngrams, self.loss, 3, self.buckets, self.min_chars, self.max_chars)
        return struct.pack("<2i12id", self.magic, self.version, *numbers, 100, 1e-4)

    def _dictionary(self) -> bytes:
        entries = [(f"w{i}", 9 - i, 0) for i in range(3)]
        entries += [(f"__label__{name}", n, 1) for name, n in zip("ab", self.label_counts, strict=True)]
        pairs = self.pruned or ()
        num_pruned = self.num_pruned if self.num_pruned is not None else -1 if self.pruned is None else len(pairs)
        return b"".join(
            [
                struct.pack("<3i2q", *self.sizes, self.num_tokens, num_pruned),
                *(name.encode() + b"\0" + struct.pack("<qb", count, kind) for name, count, kind in entries),
                *(struct.pack("<2i", *pair) for pair in pairs),
            ]
        )

    def _matrix(self) -> bytes:
        rows, columns = self._rows, self._columns
        shape = self.input_shape or (rows, columns)
        if not self.codes:
            return struct.pack("<?2q", False, *shape) + np.full(rows * columns, 0.5, np.float32).tobytes()
        num_codes = rows if self.num_codes is None else self.num_codes
        quantizer = self.quantizer or (columns, 1, columns, columns)
        return b"".join(
            [
                struct.pack("<??2qi", True, False, *shape, num_codes),
                bytes([self.code]) * rows,
                struct.pack("<4i", *quantizer),
                np.full(256 * columns, 0.5, np.float32).tobytes(),
            ]
        )

    def _output(self) -> bytes:
        shape = self.output_shape or (2, self._columns)
        return struct.pack("<?2q", False, *shape) + np.full(2 * self._columns, 0.25, np.float32).tobytes()


CASE = Case(
    layout=make_layout("prepend", template="{url}", max_metadata_tokens=3, dropout=0.0),
    documents=documents_of([20, 21], [30], list(range(40, 60)), url=["ab", None, "c"]),
    sequence_length=9,
)


def shard(directory: Path) -> Path:
    """A packed file."""
    path = directory / "packed.arrow"
    CASE.write(path)
    return path


def read_whole(path: Path) -> int:
    """Read every row of a shard, as training does; return the number of rows."""
    dataset = PackedDataset([path])
    rows = dataset.rows(range(len(dataset)))
    for values in (rows.input_ids, rows.roles, rows.segments, rows.documents):
        assert values.shape == (len(dataset), dataset.sequence_length + 1)
    assert np.isfinite(rows.loss_weights(dataset.role_weights)).all()
    assert rows.input_ids.max(initial=0) < dataset.tokenizer.num_ids
    return len(dataset)


def read_or_refused(path: Path) -> None:
    """Read a damaged file, or see it refused in one line, both with little memory."""
    with LittleMemory():
        try:
            read_whole(path)
        except ShardError as error:
            assert "\n" not in str(error)


class TestShards:
    """An Arrow file that is cut, damaged or inconsistent is refused, or read within its bounds."""

    def test_cut_anywhere(self, tmp_path: Path) -> None:
        content = shard(tmp_path).read_bytes()
        cut = tmp_path / "cut.arrow"
        for size in range(0, len(content), 7):
            cut.write_bytes(content[:size])
            with pytest.raises(ShardError, match=r"cut\.arrow: not a readable Arrow file"):
                PackedDataset([cut])

    @settings(max_examples=2 * settings.default.max_examples)
    @given(data=st.data())
    def test_flipped_bytes(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        folder = tmp_path_factory.getbasetemp()
        content = bytearray(shard(folder).read_bytes())
        for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
            content[at] ^= data.draw(st.integers(1, 255))
        path = folder / "flipped.arrow"
        path.write_bytes(content)
        read_or_refused(path)

    @settings(max_examples=2 * settings.default.max_examples)
    @given(data=st.data())
    def test_any_number_anywhere(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """Offsets, sizes and counts of an Arrow file are aligned numbers of 4 or 8 bytes."""
        folder = tmp_path_factory.getbasetemp()
        content = bytearray(shard(folder).read_bytes())
        wide = data.draw(st.booleans())
        limit = 63 if wide else 31
        number = data.draw(st.integers(-(2**limit), 2**limit - 1) | st.integers(-8, 4096))
        at = 4 * data.draw(st.integers(2, len(content) // 4 - 3))
        content[at : at + (8 if wide else 4)] = struct.pack("<q" if wide else "<i", number)
        path = folder / "lying.arrow"
        path.write_bytes(content)
        read_or_refused(path)

    @pytest.mark.parametrize("offset", [-1, -(2**31), 5000, 2**31 - 1])
    def test_lists_that_begin_outside_of_the_file(self, offset: int, tmp_path: Path) -> None:
        path = shard(tmp_path)
        offsets = read_table(path).column("run_lengths").chunk(0).offsets.to_numpy()
        content = path.read_bytes()
        at = content.index(offsets.tobytes()) + 4
        path.write_bytes(content[:at] + struct.pack("<i", offset) + content[at + 4 :])
        with pytest.raises(ShardError, match=r"packed\.arrow: not a readable Arrow file: "):
            read_whole(path)

    def test_a_compressed_shard_is_not_unpacked(self, tmp_path: Path) -> None:
        """256 MB of zeros in some hundred bytes are not decompressed."""
        zeros = pa.table({"input_ids": pa.array(np.zeros(64 << 20, np.int32))})
        path = tmp_path / "bomb.arrow"
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, zeros.schema, options=options) as writer:
            writer.write_table(zeros)
        del zeros
        before = pa.total_allocated_bytes()
        with pytest.raises(ShardError, match=r"bomb\.arrow: not a readable Arrow file: it is compressed"):
            read_table(path)
        assert pa.default_memory_pool().bytes_allocated() <= before
        assert path.stat().st_size < 1 << 20

    def test_dictionaries_are_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "dictionary.arrow"
        write_table(path, pa.table({"input_ids": pa.array(["a", "b"]).dictionary_encode()}))
        with pytest.raises(ShardError, match="it has dictionaries"):
            read_table(path)

    def test_a_pickle_in_a_schema_is_not_loaded(self, tmp_path: Path) -> None:
        """Old versions of pyarrow unpickled the metadata of an extension type (CVE-2023-47248)."""
        mark = tmp_path / "ran"
        metadata = {
            b"ARROW:extension:name": b"arrow.py_extension_type",
            b"ARROW:extension:metadata": pickle.dumps(Exploit(mark)),
        }
        table = read_table(shard(tmp_path))
        first = table.schema.field("input_ids").with_metadata(metadata)
        schema = pa.schema([first, *list(table.schema)[1:]], metadata=table.schema.metadata)
        path = tmp_path / "pickled.arrow"
        write_table(path, table.cast(schema))
        assert read_whole(path) == len(table)
        assert not mark.exists()

    def test_a_symbolic_link_out_of_the_output(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_project(tmp_path / "project")
        monkeypatch.chdir(tmp_path / "project")
        assert run().code == 0
        first = manifest().outputs["packed/plain"].records[0]
        Path("out", first.path).rename(tmp_path / "elsewhere.arrow")
        Path("out", first.path).symlink_to(tmp_path / "elsewhere.arrow")
        with pytest.raises(ShardError, match="a symbolic link, not a regular file"):
            PackedDataset.open(Path("out"), "plain")
        assert len(PackedDataset.open(Path("out"), "prepend-url")) > 0


class LittleMemory:
    """Fails if much more memory is allocated than a small file needs."""

    def __enter__(self) -> None:
        tracemalloc.start()

    def __exit__(self, *_: object) -> None:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 << 20


def refusal(directory: Path, file: ModelFile) -> str:
    """Return the error of one line with which the file is refused."""
    path = file.write(directory)
    with LittleMemory(), pytest.raises(AnnotatorError) as error:
        read_header(path)
    assert "\n" not in str(error.value)
    return str(error.value)


class TestPickles:
    """No untrusted file is unpickled, evaluated or unpacked."""

    FORBIDDEN_MODULES = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "tarfile", "zipfile", "yaml")
    FORBIDDEN_CALLS = ("eval", "exec", "compile", "os.system", "os.popen", "shutil.unpack_archive", "yaml.load")

    def test_no_source_of_ours_loads_one(self) -> None:
        found = {path: [*self.dangers(path.read_text(encoding="utf-8"))] for path in sources()}
        # Plugins, which the user allows by name: see TestPlugins.
        assert sorted(found.pop(ROOT / "annotators/plugin_files.py")) == ["compile", "exec"]
        assert {path: dangers for path, dangers in found.items() if dangers} == {}

    def dangers(self, source: str) -> Iterator[str]:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name.split(".")[0] in self.FORBIDDEN_MODULES)
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in self.FORBIDDEN_MODULES:
                yield str(node.module)
            if isinstance(node, ast.Call):
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                called = ast.unparse(node.func)
                if called in self.FORBIDDEN_CALLS or options.get("allow_pickle", "False") != "False":
                    yield called
                if called == "torch.load" and options.get("weights_only") != "True":
                    yield called
                if options.get("shell", "False") != "False":
                    yield called

    @pytest.mark.parametrize(
        "source",
        [
            "import pickle",
            "from pickle import loads",
            "import torch\ntorch.load(path)",
            "torch.load(path, weights_only=False)",
            "np.load(path, allow_pickle=True)",
            "eval(text)",
            "subprocess.run(line, shell=True)",
            "import tarfile",
        ],
    )
    def test_the_search_finds_what_it_looks_for(self, source: str) -> None:
        assert list(self.dangers(source))

    def test_the_search_lets_the_safe_ways_pass(self) -> None:
        safe = "torch.load(path, weights_only=True)\nnp.load(path, mmap_mode='r')\nre.compile(text)"
        assert list(self.dangers(safe)) == []

    @pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
    def test_a_checkpoint_with_a_pickle_is_refused(self, name: str, tmp_path: Path) -> None:
        import torch

        from colophon.trainer.checkpoints.checkpoint import Checkpoint, TrainingState, load_checkpoint, save_checkpoint
        from colophon.trainer.data.description import DataDescription
        from colophon.trainer.errors import TrainerError
        from tests.trainer.runs import TOKENIZER

        state, tensors = TrainingState(step=1), {"weight": torch.zeros(2)}
        checkpoint = Checkpoint(state=state, weights=tensors, optimizer=tensors)
        data = DataDescription(tokenizer=TOKENIZER, layouts=[], held_out=[])
        path = save_checkpoint(tmp_path, checkpoint, data=data, shared={}, keep=1)
        assert load_checkpoint(path, shared={}).state == state
        mark = tmp_path / "ran"
        for payload in (pickle.dumps(Exploit(mark)), torch_file(tmp_path, Exploit(mark))):
            (path / name).write_bytes(payload)
            with pytest.raises(TrainerError, match="damaged checkpoint") as error:
                load_checkpoint(path, shared={})
            assert "\n" not in str(error.value)
        assert not mark.exists()

    def test_the_exploit_works_where_it_is_unpickled(self, tmp_path: Path) -> None:
        pickle.loads(pickle.dumps(Exploit(tmp_path / "ran")))
        assert (tmp_path / "ran").exists()

    def test_a_pickle_in_a_parquet_schema_is_not_loaded(self, place: Path) -> None:
        mark = place / "ran"
        field = pa.field("text", pa.string()).with_metadata(
            {
                b"ARROW:extension:name": b"arrow.py_extension_type",
                b"ARROW:extension:metadata": pickle.dumps(Exploit(mark)),
            }
        )
        table = pq.read_table("data/part-0.parquet")
        pq.write_table(table.cast(pa.schema([field, *list(table.schema)[1:]])), "data/part-0.parquet")
        assert run().code == 0
        assert not mark.exists()

    @pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
    def test_archives_are_not_unpacked(self, suffix: str, place: Path) -> None:
        Path(f"archive{suffix}").write_bytes(b"PK\x03\x04")
        called = run("--set", f'input.paths="archive{suffix}"')
        assert called.code == 2
        assert called.line.endswith(" files are not read. Unpack it")


def sources() -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(found) > 50
    return found


def torch_file(directory: Path, value: object) -> bytes:
    import torch

    torch.save(value, directory / "value.pt")
    return (directory / "value.pt").read_bytes()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project as working directory."""
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestRecipes:
    """A recipe decides which files are read and written; without `--plugins` it cannot name code to execute."""

    @pytest.mark.parametrize(
        "template",
        [
            "{url.__class__}",
            "{url[0]}",
            "{0}",
            "{}",
            "{url!r}",
            "{url:999999999}",
            "{url:{url}}",
            "{__import__('os')}",
            "{url",
            "}",
        ],
    )
    def test_a_template_names_columns_and_nothing_else(self, template: str, place: Path) -> None:
        called = run("--set", f"layouts.prepend-url.template={json.dumps(template)}", "--dry-run")
        assert called.code == 2
        assert called.line.startswith("recipe.toml: layouts.prepend-url.template: ")

    @pytest.mark.parametrize("field", ["__class__", "self", "globals"])
    def test_a_template_cannot_name_what_no_annotator_makes(self, field: str, place: Path) -> None:
        called = run("--set", f'layouts.prepend-url.template="{{{field}}}"', "--dry-run")
        assert called.code == 2
        assert field in called.line

    @pytest.mark.parametrize(
        "name", ["os", "os.system", "colophon.pipeline.cli:main", "../x", "base", "kernel", "__init__", ""]
    )
    def test_an_annotator_is_one_of_ours(self, name: str, place: Path) -> None:
        called = run("--set", f'annotators.mine.type="{name}"', "--dry-run")
        assert called.code == 2
        assert f"unknown annotator {name!r}; available: " in called.line

    @pytest.mark.parametrize("name", ["a/b", "..", "../../x", ".hidden", "", "a\\b", "a\0b"])
    @pytest.mark.parametrize("section", ["annotators", "layouts"])
    def test_a_name_that_becomes_a_directory_is_a_plain_word(self, section: str, name: str, place: Path) -> None:
        content = {"annotators": 'type = "url"', "layouts": 'position = "plain"'}[section]
        text = RECIPE + f"\n[{section}.{json.dumps(name)}]\n{content}\n"
        Path("recipe.toml").write_text(text)
        called = run("--dry-run")
        assert called.code == 2
        assert "becomes a directory name" in called.line

    def test_only_toml_is_read(self, place: Path) -> None:
        for name, text in (("recipe.py", "open('ran', 'w')"), ("recipe.yaml", "!!python/object/apply:os.mkdir [ran]")):
            Path(name).write_text(text)
            called = colophon("run", name, "--executor", "inline")
            assert called.code == 2
            assert "not valid TOML" in called.line
        assert not Path("ran").exists()

    def test_a_module_beside_the_recipe_is_not_imported(self, place: Path) -> None:
        for name in ("annotators", "url", "recipes"):
            Path(f"{name}.py").write_text("open('ran', 'w')")
        assert run("--dry-run").code == 0
        assert not Path("ran").exists()


class TestPlugins:
    """Python code beside a recipe runs only with `--plugins`, or in a directory that COLOPHON_PLUGINS lists."""

    COMMANDS = {
        name: [
            word
            for parameter in command.params[1:]
            if parameter.required
            for word in (parameter.opts[-1], {"address": "http://127.0.0.1:1", "step": "1"}.get(parameter.name, "x"))
        ]
        for name, command in typer.main.get_command(cli.app).commands.items()  # type: ignore[attr-defined]
        if command.params and command.params[0].name == "recipe"
    }
    """The commands that take a recipe, with the options that each requires."""

    def test_every_command_that_takes_a_recipe_is_tried(self) -> None:
        assert {"run", "status", "verify", "train", "evaluate", "submit", "export"} <= {*self.COMMANDS}

    @pytest.mark.parametrize("name", COMMANDS)
    def test_no_command_runs_it_unasked(self, name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COLOPHON_PLUGINS", raising=False)
        Path("mine.py").write_text("import os\nos.mkdir('ran')\n")
        Path("recipe.toml").write_text(RECIPE + '\n[plugins]\nfiles = ["mine.py"]\n')
        called = colophon(name, "recipe.toml", *self.COMMANDS[name])
        assert called.code == 2
        assert called.line.startswith("recipe.toml: plugins.files: mine.py: the recipe would run this Python code")
        assert not Path("ran").exists()
        called = colophon(name, "recipe.toml", "--plugins", *self.COMMANDS[name])
        assert (called.code, called.line) == (2, f"recipe.toml: plugins.files: mine.py: {NO_ANNOTATOR}")
        assert Path("ran").exists(), "the option is the one that the line names"


NO_ANNOTATOR = "defines no annotator: no subclass of AnnotatorConfig with build()"


class TestPaths:
    """Names in a record, a manifest or an input do not decide where files are written."""

    @pytest.mark.parametrize(
        "name", ["..parquet", "a\\..\\b.parquet", "x;touch ran.parquet", "-rf.parquet", "%2e%2e.parquet"]
    )
    def test_an_input_file_names_a_plain_partition(self, name: str, place: Path) -> None:
        Path("odd").mkdir()
        write_documents(Path("odd", name), range(5))
        called = run("--set", f"input.paths=[{json.dumps('odd/' + name)}]")
        assert called.code == 0, called.err
        for partition in manifest().partitions:
            assert all(c.isalnum() or c in "-_" for c in partition.name)
        written = {path.parts[0] for path in Path().rglob("*") if path.is_file()} - {"small.tiktoken", "recipe.toml"}
        assert written == {"data", "odd", "out"}

    def test_a_manifest_of_a_stranger_stays_inside(self, place: Path) -> None:
        assert run().code == 0
        Path("secret.arrow").write_bytes(b"secret")
        text = manifest().model_dump_json()
        record = manifest().outputs["packed/plain"].records[0]
        for path in ("../secret.arrow", str(Path("secret.arrow").absolute())):
            Path("out/manifest.json").write_text(text.replace(record.path, path))
            called = colophon("verify", "recipe.toml")
            assert called.code == 2
            assert "leaves the output directory" in called.line
        forged = RecordTable.of("packed/plain", [record.model_copy(update={"path": "../secret.arrow"})])
        of_layout = OutputManifest(settings={}, records=forged)
        honest = Manifest.model_validate_json(text)
        Store("out").write_manifest(honest.model_copy(update={"outputs": {"packed/plain": of_layout}}))
        with pytest.raises(ShardError, match="leaves the output directory"):
            PackedDataset.open(Path("out"), "plain")


LISTENERS = """
import grpc, json, os, psutil
from colophon.pipeline.executors.on_ray.cluster import connect, disconnect
import ray
from colophon.pipeline.recipe.schema import RaySection
connect(RaySection(num_workers=1), log=lambda line: None)
processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
found = [c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
names = [p.name() for p in processes]
channel = grpc.insecure_channel(ray.get_runtime_context().gcs_address)
alive = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
answers = []
for token in (None, "0" * 64, os.environ["RAY_AUTH_TOKEN"]):
    try:
        alive(b"", metadata=[] if token is None else [("authorization", f"Bearer {token}")], timeout=20)
        answers.append("OK")
    except grpc.RpcError as error:
        answers.append(error.code().name)
disconnect()
print(json.dumps([found, names, answers]))
"""


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_a_local_ray_listens_on_loopback_only_and_has_no_dashboard(tmp_path: Path) -> None:
    """A process that can connect to a Ray port, and has the token or needs none, can run code there."""
    unset = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")
    environment = {name: value for name, value in os.environ.items() if name not in unset} | {"HOME": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", LISTENERS], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    addresses, names, answers = json.loads(ended.stdout.splitlines()[-1])
    assert len(addresses) >= 3, "gcs_server, raylet and this process"
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
    # The raylet's own agents have that name too; the server that accepts jobs from any process is `dashboard.py`.
    assert not [name for name in names if "dashboard" in name.lower() and "agent" not in name.lower()]
    assert answers == ["UNAUTHENTICATED", "UNAUTHENTICATED", "OK"]
    assert not (tmp_path / ".ray").exists(), "Ray would keep the token in a file that every user can read"
