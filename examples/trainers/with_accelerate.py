"""A loop with accelerate, which shares the rows of each update among its processes.

accelerate launch examples/trainers/with_accelerate.py out/web prepend-url
"""

import sys

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from colophon.torch import TrainingDataset, collate_for_transformers


def train(run: str, layout: str, *, steps: int = 5, batch_size: int = 4) -> list[float]:
    """Train, and return the loss of each update."""
    accelerator = Accelerator(cpu=True)
    data = TrainingDataset(run, {"layout": layout, "steps": steps, "batch_size": batch_size})
    loader = DataLoader(
        data, batch_size=batch_size // accelerator.num_processes, collate_fn=collate_for_transformers
    )  # in order: accelerate gives each process the next batch
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=data.reader.tokenizer.num_ids, **sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    losses = []
    for batch in loader:  # after n updates: accelerator.skip_first_batches(loader, n)
        # The mean over all processes' labels: gradients are averaged over processes.
        num_labels = accelerator.reduce((batch["labels"] != -100).sum(), "sum") / accelerator.num_processes
        loss = model(**batch, num_items_in_batch=num_labels).loss
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        losses.append(accelerator.reduce(loss.detach(), "mean").item())
    return losses


if __name__ == "__main__":
    print(*(f"{loss:.3f}" for loss in train(*sys.argv[1:])))
