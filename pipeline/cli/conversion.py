"""The command that converts packed layouts to the formats of other trainers."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from colophon.pipeline.cli.options import JsonOption, local_only
from colophon.pipeline.cli.terminal import echo, echo_json, progress_log
from colophon.pipeline.errors import UsageError
from colophon.shards.stores.places import run_place


class _FormatName(str, Enum):
    MEGATRON = "megatron"
    MDS = "mds"
    NPY = "npy"
    NANOTRON = "nanotron"
    PARQUET = "parquet"


def convert(
    run: Annotated[
        str,
        typer.Argument(help="Output of a finished run, a directory or a URL: `output.path` of its recipe."),
    ],
    layout: Annotated[str, typer.Option(help="Name of a packed layout of the run.")],
    to: Annotated[
        _FormatName,
        typer.Option(
            help="Format: megatron (megatron-core), mds (mosaicml-streaming), npy (OLMo-core), nanotron (datatrove), "
            "parquet (Hugging Face datasets and others)."
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Directory to write; it must not exist yet, or be empty.", callback=local_only)
    ],
    binarize: Annotated[
        bool, typer.Option("--binarize", help="Write 1 for every loss weight above 0; npy and nanotron hold no others.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a different conversion in the directory.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a packed layout, with loss weights and document boundaries, in the format of a different trainer.

    Example: `colophon convert out/web --layout prepend-url --to megatron --output out/megatron`
    """
    from colophon.pipeline.conversion.conversion import Conversion

    try:
        place = run_place(run)
    except ValueError as error:
        raise UsageError(f"RUN: {error}") from None
    conversion = Conversion(place, layout=layout, to=to.value, binarize=binarize)
    written = conversion.write(output, overwrite=overwrite, log=progress_log(as_json))
    num_bytes = sum(file.bytes for file in written.files)
    if as_json:
        echo_json({"path": str(output), "bytes": num_bytes, **written.model_dump(mode="json")})
        return
    echo(
        f"{output}: {written.rows:,} rows of {written.sequence_length:,} inputs, {num_bytes / 1e6:,.1f} MB in "
        f"{len(written.files):,} files for {written.reader}; all read back"
    )
    for lack in written.lacks:
        echo(f"not in this format: {lack}")
