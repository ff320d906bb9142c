"""Lightning on a layout, in the order of `colophon train`.

python examples/trainers/with_lightning.py out/web prepend-url
"""

import sys

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from colophon.torch import TrainingDataset, collate_for_transformers


class LanguageModel(pl.LightningModule):
    """A small Llama."""

    def __init__(self, num_ids: int) -> None:
        super().__init__()
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        self.model = LlamaForCausalLM(LlamaConfig(vocab_size=num_ids, **sizes))
        self.losses: list[float] = []

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """The loss of a batch."""
        loss: Tensor = self.model(**batch).loss
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def train(run: str, layout: str, *, steps: int = 5, batch_size: int = 4) -> list[float]:
    """Train on one process, and return the loss of each update."""
    data = TrainingDataset(run, {"layout": layout, "steps": steps, "batch_size": batch_size})
    loader = DataLoader(data, batch_size=batch_size, collate_fn=collate_for_transformers)
    pl.seed_everything(0, verbose=False)
    model = LanguageModel(data.reader.tokenizer.num_ids)
    # With several devices: batch_size // devices in the loader, and use_distributed_sampler=True for their shares.
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_steps=steps, accelerator="cpu", devices=1, enable_model_summary=False, **quiet)
    trainer.fit(model, loader)
    return model.losses


if __name__ == "__main__":
    print(*(f"{loss:.3f}" for loss in train(*sys.argv[1:])))
