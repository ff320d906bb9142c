"""Read a layout as nanotron does, with datatrove's dataset, and the loss mask, which that dataset leaves aside.

colophon convert out/web --layout prepend-url --to nanotron --output out/nanotron
python examples/trainers/read_nanotron.py out/nanotron
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from datatrove.utils.dataset import DatatroveFolderDataset
from torch.utils.data import Dataset


class LayoutDataset(Dataset[dict[str, torch.Tensor]]):
    """Ids and positions of `DatatroveFolderDataset`, and whether each token is trained on."""

    def __init__(self, directory: Path) -> None:
        conversion = json.loads((directory / "conversion.json").read_text())
        length, size = conversion["sequence_length"], np.dtype(conversion["id_dtype"]).itemsize
        self.rows = DatatroveFolderDataset(str(directory), seq_len=length, token_size=size, return_positions=True)
        masks = [np.memmap(f"{directory / file.file_path}.loss", bool, "r") for file in self.rows.files]
        self.masks = [mask.reshape(-1, length + 1) for mask in masks]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        """`input_ids`, `positions`, `label_ids` and `label_mask`, each [sequence_length]."""
        item = self.rows[row]
        file = self.rows.current_file
        mask = self.masks[file][row - self.rows.lens[file]]
        return {
            "input_ids": item["input_ids"][:-1],
            "positions": item["positions"][:-1],
            "label_ids": item["input_ids"][1:],
            "label_mask": torch.from_numpy(mask[1:].copy()),
        }


if __name__ == "__main__":
    dataset = LayoutDataset(Path(sys.argv[1]))
    print(len(dataset), {name: value[:8].tolist() for name, value in dataset[0].items()})
