"""Outputs: one name for a directory, built and parsed in one place."""

from __future__ import annotations

import json
import pickle

import pytest

from colophon.shards.common.errors import ShardError
from colophon.shards.outputs import STAGES, TOKENS, Output

OUTPUTS = {
    "annotations/url": (Output.annotations("url"), "annotate", "url", ".parquet"),
    "tokens": (TOKENS, "tokenize", "", ".arrow"),
    "packed/prepend-url": (Output.packed("prepend-url"), "pack", "prepend-url", ".arrow"),
}


@pytest.mark.parametrize("directory", OUTPUTS)
def test_an_output_is_its_directory_and_knows_its_parts(directory: str) -> None:
    output, stage, name, suffix = OUTPUTS[directory]
    assert output == directory
    assert Output.parse(directory) == output
    assert (output.stage, output.name, output.suffix) == (stage, name, suffix)
    assert json.loads(json.dumps({output: output})) == {directory: directory}
    assert pickle.loads(pickle.dumps(output)).stage == stage


def test_every_stage_fills_an_output() -> None:
    assert tuple(stage for _, stage, _, _ in OUTPUTS.values()) == STAGES


@pytest.mark.parametrize(
    "text", ["", "packed", "packed/", "annotations", "annotations/", "tokens/", "tokens/x", "records/tokens", "/tokens"]
)
def test_what_is_not_an_output_lists_the_choices(text: str) -> None:
    expected = rf"unknown output '{text}': expected annotations/<annotator>, tokens or packed/<layout>"
    with pytest.raises(ShardError, match=expected):
        Output.parse(text)
