"""A run whose documents, URLs, labels, layouts, source and file names attack the pages that show it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.pipeline.small_run import run_recipe, write_small_run

SOURCE = "<img src=x onerror='alert(1)'>"
STRINGS = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<!--<script>",
    "\" onmouseover=\"document.title='owned'",
    "{{constructor.constructor('alert(1)')()}} datum['value'] ${1}",
    "\u202eright to left\u2066 \u05e9\u05dc\u05d5\u05dd",
    "\x1b[31m\x00\u2028\u2029\ufeff\x85",
    "long " * 10_000,
    "",
]
SCRIPT_URL = "javascript:document.title='owned'"
NUM_DOCUMENTS = 60
LONG_TEXT = "x" * 5_000_000
"""The text of the first document."""


def text_of(number: int) -> str:
    """The text of a document."""
    return LONG_TEXT if number == 0 else STRINGS[number % len(STRINGS)] + " text"


def write_hostile_run(root: Path) -> Path:
    """Run all stages into `root/out`; the path of the recipe."""
    recipe = write_small_run(root, num_files=0)
    rows = [
        {
            "text": text_of(i),
            "id": STRINGS[i % len(STRINGS)],
            "url": SCRIPT_URL if i == 7 else f"https://{'<b>' if i % 2 else 'a'}.example.org/{STRINGS[i % 5]}/{i}",
            "dump": f"CC-MAIN-20{13 + i % 10}-05",
            "label": STRINGS[i % len(STRINGS)],
            "day": str(date(2010 + i % 9, 1, 1)),
            "number": [float("nan"), float("inf"), 1e308, -1e308, 0.5][i % 5],
        }
        for i in range(NUM_DOCUMENTS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "data/<script>alert(1)<.parquet")
    (root / "data/broken<script>.parquet").write_bytes(b"PAR1")
    names = 'label = {}\nday = { type = "date" }\nnumber = { type = "number" }\n'
    own = f'\n[annotators.own]\ntype = "columns"\n[annotators.own.columns]\n{names}'
    layout = "\n[layouts.label]\nposition = 'append'\ntemplate = '{label}'\n"
    source = f"[[inputs]]\nname = {json.dumps(SOURCE)}"
    text = recipe.read_text().replace("[input]", source).replace("sequence_length = 160", "sequence_length = 2048")
    recipe.write_text(text + own + layout)
    run_recipe(recipe, output=root / "out")
    return recipe
