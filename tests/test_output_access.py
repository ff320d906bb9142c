"""The law of outputs: every path below an output goes through `shards.common.output_paths`.

The modules that read and write outputs call nothing that opens, lists, creates or deletes files, except those listed
here, each with the reason why its paths are checked or are not of an output.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = (
    "shards",
    "trainer",
    "pipeline/storage",
    "pipeline/stages",
    "pipeline/conversion",
    "pipeline/export",
    "pipeline/reports",
    "pipeline/runs",
    "pipeline/verification",
    "pipeline/cli",
    "pipeline/demo",
)
ACCESS = {
    *("open", "fdopen", "read_text", "read_bytes", "write_text", "write_bytes", "touch", "mkdir", "makedirs"),
    *("unlink", "rmtree", "rmdir", "rename", "link", "symlink", "symlink_to", "hardlink_to", "chmod"),
    *("copyfile", "copytree", "glob", "rglob", "iterdir", "walk", "scandir", "listdir", "truncate"),
    *("OSFile", "memory_map", "memmap", "ParquetFile", "ParquetWriter", "write_to_dataset", "read_metadata"),
    *("load_file", "save_file", "safe_open", "savefig", "SummaryWriter", "scan_parquet", "scan_ipc", "read_parquet"),
}
FUNCTIONS = {
    "pq.read_table",
    "pq.write_table",
    "np.load",
    "np.save",
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "os.remove",
    "shutil.copy",
    "shutil.move",
}
RECEIVERS = {"files", "worker", "layouts", "self", "self._layouts"}
"""Objects whose methods have these names and check their paths, or have nothing to do with files."""

CHECKED = {
    "shards/common/output_paths.py": {"scandir", "open"},
    "shards/common/durable.py": {"open", "mkdir", "rename", "unlink", "rmtree", "rglob", "write_bytes"},
    "shards/common/state_files.py": {"fdopen"},
    "shards/arrow_files.py": {"OSFile", "memory_map"},
    "shards/annotations.py": {"ParquetFile", "scan_parquet"},
    "shards/run_output.py": {"scan_ipc"},
    "pipeline/storage/files.py": {"open", "unlink", "link", "mkdir", "write_text"},
    "pipeline/storage/lock.py": {"mkdir", "rmdir", "unlink"},
    "pipeline/storage/commits.py": {"unlink", "glob"},
    "pipeline/stages/annotation.py": {"ParquetFile", "ParquetWriter", "read_metadata"},
    "pipeline/stages/packing.py": {"ParquetFile"},
    "pipeline/conversion/files.py": {"mkdir", "open"},
    "pipeline/conversion/directory.py": {"open", "rglob", "iterdir", "rename", "rmtree"},
    "pipeline/conversion/parquet.py": {"ParquetWriter"},
    "pipeline/export/annotations.py": {"ParquetFile"},
    "pipeline/export/directory.py": {"rglob", "unlink", "read_metadata"},
    "pipeline/export/export.py": {"mkdir"},
    "pipeline/export/stage.py": {"ParquetWriter"},
    "pipeline/reports/comparison/documents.py": {"scan_ipc"},
    "pipeline/reports/inspection.py": {"pq.read_table"},
    "pipeline/reports/page/images.py": {"write_bytes"},
    "pipeline/verification/committed_files.py": {"read_metadata"},
    "pipeline/verification/recomputed.py": {"pq.read_table"},
    "pipeline/demo/corpus.py": {"unlink", "pq.write_table"},
    "trainer/checkpoints/run_directory.py": {"rmtree"},
    "trainer/checkpoints/checkpoint.py": {
        *("write_text", "touch", "chmod", "glob", "rename", "rmtree", "load_file", "save_file"),
    },
    "trainer/monitoring/metrics.py": {"fdopen"},
    "trainer/monitoring/trackers.py": {"SummaryWriter"},
    "trainer/plots/figures.py": {"savefig"},
}
"""Calls with a path that `inside` returned, or that has a new, random name in a directory that it returned."""

NO_OUTPUTS = {
    "shards/common/cache_directory.py": {"mkdir"},
    "shards/stores/objects.py": {"open"},  # of an object in a store
    "shards/stores/row_cache.py": {"open", "scandir", "unlink"},  # a cache, with names of its own
    "shards/common/digests.py": {"open"},  # of a path that its caller has checked
    "shards/common/file_locks.py": {"read_text"},  # /proc
    "shards/common/state_tables.py": {"pq.read_table", "pq.write_table"},  # of bytes in memory
    "shards/tokenizer/engine_specs.py": {"fdopen", "unlink"},
    "shards/tokenizer/files.py": {"read_bytes"},
    "shards/tokenizer/hub.py": {"glob"},  # a snapshot in the hub's cache
    "shards/tokenizer/tokenizer.py": {"load_file"},  # ours
    "shards/tokenizer/training.py": {"write_bytes"},
    "pipeline/storage/fault_injection.py": {"open"},  # of tests
    "pipeline/storage/owner.py": {"read_text"},  # /proc
    "pipeline/storage/run_files.py": {"memmap"},  # of a file without a name
    "pipeline/runs/submit.py": {"read_bytes"},
    "pipeline/runs/upload.py": {"copyfile", "iterdir", "mkdir"},  # the copy of a project that is submitted
    "pipeline/reports/page/markup.py": {"read_text"},  # our own style and script
    "pipeline/reports/view/server.py": {"read_text"},
    "pipeline/cli/terminal.py": {"open"},  # /dev/null
    "pipeline/cli/view.py": {"open"},  # the browser
    "pipeline/cli/starting.py": {"read_text"},  # the built-in recipes
    "pipeline/demo/corpus.py": {"read_bytes", "glob"},  # our own modules
    "pipeline/demo/distributions.py": {"glob", "rglob", "read_text", "read_bytes"},
    "pipeline/demo/documents.py": {"read_bytes"},
    "pipeline/demo/docstrings.py": {"read_bytes"},
    # An exported model is a directory of its own, which the hub's cache makes of links; `_regular` refuses pipes.
    "trainer/export/model.py": {"read_bytes", "write_text", "iterdir", "load_file"},
}
"""Calls with paths of inputs, of the installation, and of the user's own choice."""


def accesses(source: str) -> Iterator[str]:
    """The calls of a module that take a path to a file or directory."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        receiver, _, last = name.rpartition(".")
        if name in FUNCTIONS:
            yield name
        elif last in ACCESS and not is_ours(receiver):
            yield last


def is_ours(receiver: str) -> bool:
    """Whether a method is called of one of our classes or of their objects, such as `PackedDataset.open`."""
    is_class = receiver[:1].isupper() and not receiver.startswith("Path")
    return is_class or receiver in RECEIVERS or receiver.endswith(".files")


def files() -> list[Path]:
    return sorted({path for room in ROOMS for path in (ROOT / room).rglob("*.py")})


def test_outputs_are_reached_in_one_way() -> None:
    found = {path.relative_to(ROOT).as_posix(): set(accesses(path.read_text(encoding="utf-8"))) for path in files()}
    allowed = {file: CHECKED.get(file, set()) | NO_OUTPUTS.get(file, set()) for file in {*CHECKED, *NO_OUTPUTS}}
    others = {file: calls - allowed.get(file, set()) for file, calls in found.items()}
    assert {file: calls for file, calls in others.items() if calls} == {}, "use shards.common.output_paths"
    unused = {file: calls - found.get(file, set()) for file, calls in allowed.items()}
    assert {file: calls for file, calls in unused.items() if calls} == {}, "remove exceptions that nothing needs"


def test_the_guard_sees_every_way() -> None:
    source = "open(p); Path(p).open(); p.read_text(); os.open(p); shutil.rmtree(p); pq.read_table(p); np.memmap(p)"
    assert sorted(accesses(source)) == ["memmap", "open", "open", "open", "pq.read_table", "read_text", "rmtree"]
    assert list(accesses("files.read_text(p); store.files.names(p); PackedDataset.open(p); text.replace(a, b)")) == []
