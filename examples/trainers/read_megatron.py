"""Train with Megatron on a layout: a GPTDataset whose loss mask and positions are those of the conversion.

colophon convert out/web --layout prepend-url --to megatron --output out/megatron
python examples/trainers/read_megatron.py out/megatron
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig, IndexedDataset
from megatron.core.datasets.utils import Split


class LayoutDataset(GPTDataset):
    """Samples in Megatron's own order, each of them one row of the layout; its caches are beside the conversion."""

    def __init__(self, directory: Path, *, num_samples: int | None = None) -> None:
        self.weights = IndexedDataset(str(directory / "loss_weights"))
        self.segment_lengths = IndexedDataset(str(directory / "segment_lengths"))
        rows, every = IndexedDataset(str(directory / "ids")), np.arange(len(self.weights), dtype=np.int32)
        super().__init__(rows, None, every, num_samples, Split.train, config_of(directory))

    def __getitem__(self, idx: int | None) -> dict[str, torch.Tensor]:
        """Values of one row, each [sequence_length + 1]; the last position has no label, and its loss mask is 0."""
        row = int(self.document_index[self.shuffle_index[idx or 0]])  # sample k is document k of Megatron's order
        tokens = torch.from_numpy(self.dataset[row].astype(np.int64))
        weights = np.roll(self.weights[row].astype(np.float32), -1)  # the first of a row is always 0
        positions = np.concatenate([np.arange(length) for length in self.segment_lengths[row]])
        return {
            "tokens": tokens,
            "labels": tokens.roll(-1),
            "loss_mask": torch.from_numpy(weights) * (idx is not None),
            "position_ids": torch.from_numpy(positions),
        }


def config_of(directory: Path) -> Any:
    """Sequences as long as rows and no additional token, so that every sample is one row."""
    conversion = json.loads((directory / "conversion.json").read_text())
    tokenizer, special = conversion["tokenizer"], conversion["tokenizer"]["special"]
    ids = {"eod": special["eos"], "pad": special["pad"], "vocab_size": tokenizer["num_ids"]}
    return GPTDatasetConfig(
        random_seed=0,
        sequence_length=conversion["sequence_length"] + 1,
        add_extra_token_to_sequence=False,
        split="1",
        path_to_cache=f"{directory}-cache",
        tokenizer=SimpleNamespace(**ids, unique_identifiers={"name": tokenizer["name"]}),
        **dict.fromkeys(("reset_position_ids", "reset_attention_mask", "eod_mask_loss"), False),
    )


if __name__ == "__main__":
    print({name: tuple(value.shape) for name, value in LayoutDataset(Path(sys.argv[1]))[0].items()})
