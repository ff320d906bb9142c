"""Hugging Face's Trainer on a layout, in the order of `colophon train`.

python examples/trainers/with_transformers.py out/web prepend-url
"""

import sys
import tempfile

from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

from colophon.torch import TrainingDataset, collate_for_transformers


def train(run: str, layout: str, *, steps: int = 5, batch_size: int = 4) -> list[float]:
    """Train on one process, and return the loss of each update."""
    data = TrainingDataset(run, {"layout": layout, "steps": steps, "batch_size": batch_size})
    set_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=data.reader.tokenizer.num_ids, **sizes))
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            directory,
            max_steps=steps,
            per_device_train_batch_size=batch_size,  # times processes and accumulation: batch_size of the data
            train_sampling_strategy="sequential",  # the data set has the order
            remove_unused_columns=False,  # the collator names what the model takes
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(model, arguments, train_dataset=data, data_collator=collate_for_transformers)
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    print(*(f"{loss:.3f}" for loss in train(*sys.argv[1:])))
