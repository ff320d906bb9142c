"""Contestant: `transformers.LlamaForCausalLM` under `transformers.Trainer`, with its fused AdamW and SDPA attention.

python -m benchmarks.trainer.hugging_face JOB
"""

from __future__ import annotations

import sys
import tempfile
import time
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from benchmarks.trainer.job import read_job, report
from benchmarks.trainer.plain_loop import labels_of


class Rows(Dataset[dict[str, torch.Tensor]]):
    """The job's rows in order; labels unshifted, as the model shifts them itself."""

    def __init__(self, ids: torch.Tensor, labels: torch.Tensor) -> None:
        self._ids, self._labels = ids, labels

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._ids[row], "shift_labels": self._labels[row], "labels": self._labels[row]}


class Watch(TrainerCallback):  # type: ignore[misc]
    """Records the seconds between the ends of steps, and the logged losses."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock of the first step."""
        self._last = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Record the seconds of a step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Record the loss of a logged step."""
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def main(path: str) -> None:
    """Train the job at `path`."""
    job = read_job(path)
    config = job.config(document_masking=False).model
    weights = job.initial_weights()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=weights["embed_tokens.weight"].shape[0],
            hidden_size=config.hidden_size,
            intermediate_size=config.ffn_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            tie_word_embeddings=config.tie_embeddings,
            max_position_embeddings=job.sequence_length,
        )
    )
    named = {name if name.startswith("lm_head") else f"model.{name}": tensor for name, tensor in weights.items()}
    missing = model.load_state_dict(named, strict=False)
    assert not missing.unexpected_keys
    rows = job.rows()
    labels = labels_of(job, rows).flatten(0, 1)
    labels[labels < 0] = -100
    ids = torch.from_numpy(rows[..., :-1].copy()).flatten(0, 1)
    watch = Watch()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=scratch,
                max_steps=job.steps,
                per_device_train_batch_size=job.micro_batch_size,
                gradient_accumulation_steps=job.batch_size // job.micro_batch_size,
                learning_rate=3e-4,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                adam_beta2=0.95,
                max_grad_norm=0.0,
                optim="adamw_torch_fused",
                bf16=job.dtype == "bfloat16",
                use_cpu=job.device == "cpu",
                torch_compile=job.device == "cuda",
                logging_steps=1,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                train_sampling_strategy="sequential",
                remove_unused_columns=False,
                dataloader_num_workers=2 if job.device == "cuda" else 0,
            ),
            train_dataset=Rows(ids, labels),
            callbacks=[watch],
        )
        trainer.train()
    report(losses=watch.losses[: job.steps], seconds=watch.seconds, job=job)


if __name__ == "__main__":
    main(sys.argv[1])
