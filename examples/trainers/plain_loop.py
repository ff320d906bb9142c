"""A plain PyTorch loop: weighted loss, documents masked, a state that continues with any number of processes.

python examples/trainers/plain_loop.py out/web prepend-url
"""

import sys

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from colophon.torch import PackedIterableDataset


class TinyModel(nn.Module):
    """One layer of attention within documents."""

    def __init__(self, num_ids: int, *, length: int, size: int = 32) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(num_ids, size), nn.Embedding(length, size)
        self.layer = nn.TransformerEncoderLayer(size, 4, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(size, num_ids)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits [b, L, num_ids]."""
        documents, index = batch["document_ids"], torch.arange(batch["input_ids"].shape[1])
        hidden = (documents[:, :, None] != documents[:, None, :]) | (index[None, :] > index[:, None])
        states = self.tokens(batch["input_ids"]) + self.positions(batch["positions"])
        return self.head(self.layer(states, src_mask=hidden.repeat_interleave(4, dim=0)))


def train(run: str, layout: str, *, steps: int = 5, batch_size: int = 4) -> list[float]:
    """Train, and return the loss of each update."""
    settings = {"layout": layout, "steps": steps, "batch_size": batch_size}
    data = PackedIterableDataset(run, settings)  # under torchrun with rank= and world_size=
    tokenizer, length = data.reader.tokenizer, data.reader.sequence_length
    torch.manual_seed(0)
    model = TinyModel(tokenizer.num_ids, length=length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _step, batch in enumerate(DataLoader(data, batch_size=data.rows_at_once), start=data.step + 1):
        weights, labels = batch["loss_weights"], batch["labels"]
        each = cross_entropy(model(batch).transpose(1, 2), labels, ignore_index=-100, reduction="none")
        loss = (each * weights).sum() / weights.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        # Beside the model's checkpoint: data.state_dict(_step); data.load_state_dict(...) continues there.
    return losses


if __name__ == "__main__":
    print(*(f"{loss:.3f}" for loss in train(*sys.argv[1:])))
