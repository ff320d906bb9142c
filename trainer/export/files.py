"""The content of an export's files other than weights and vocabulary: settings for `transformers`, and a README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from colophon.shards.layouts import AppendLayout, Layout, MetaTokensLayout, PrependLayout
from colophon.shards.schema import TokenizerInfo
from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.checkpoints.checkpoint import TrainingState
from colophon.trainer.config import ModelConfig, TrainConfig
from colophon.trainer.export.tokenizer import ExportedTokenizer

WeightsDtype: TypeAlias = Literal["float32", "bfloat16"]


class Description(BaseModel):
    """The content of `colophon.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    name: str
    """The training run's."""
    state: TrainingState
    config: TrainConfig
    tokenizer: TokenizerInfo
    layout_name: str
    layout: Layout
    sequence_length: int
    masked_ids: list[int]
    """Ids that had no probability in training. `transformers` gives them some; `generation_config` suppresses them."""


def model_config(description: Description, *, dtype: WeightsDtype) -> dict[str, Any]:
    """The content of `config.json`, for versions 4 and 5 of `transformers`."""
    model, special = description.config.model, description.tokenizer.special
    return {
        **_architecture(model),
        "vocab_size": description.tokenizer.num_ids,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": description.sequence_length,
        "initializer_range": model.init_std,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_base,  # version 4
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_base},  # version 5
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
        "pad_token_id": special.pad,
        "dtype": dtype,
        "torch_dtype": dtype,  # before version 4.56
        "use_cache": True,
    }


def _architecture(model: ModelConfig) -> dict[str, Any]:
    if model.qk_norm:
        # Llama with a norm over each head of queries and keys before rotation is Qwen 3 without sliding windows.
        return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "use_sliding_window": False}
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False}


def generation_config(description: Description) -> dict[str, Any]:
    """The content of `generation_config.json`.

    As in `colophon generate`, the only special id that is generated is eos, which ends a text; in a layout with
    metadata after the text, boc ends it too.
    """
    special = description.tokenizer.special
    ends = [special.eos, special.boc] if isinstance(description.layout, AppendLayout) else [special.eos]
    suppressed = {special.bos, special.pad, special.boc, special.eoc, *special.meta, *description.masked_ids}
    return {
        "bos_token_id": special.bos,
        "eos_token_id": ends if len(ends) > 1 else special.eos,
        "pad_token_id": special.pad,
        "do_sample": False,
        "suppress_tokens": sorted(suppressed - set(ends)),
    }


def tokenizer_config(tokenizer: Tokenizer, sequence_length: int) -> dict[str, Any]:
    """The content of `tokenizer_config.json`."""
    names, special = tokenizer.special_names, tokenizer.special
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": names[special.bos],
        "eos_token": names[special.eos],
        "pad_token": names[special.pad],
        "model_max_length": sequence_length,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # as in training: the text of a document never gives a special id
    }


def readme(description: Description, tokenizer: Tokenizer, exported: ExportedTokenizer) -> str:
    """The content of `README.md`: how to use the model, and where `transformers` differs from training."""
    special, names = description.tokenizer.special, tokenizer.special_names
    lines = [
        f"# {description.name}, step {description.state.step}",
        "",
        f"Trained by Colophon on the layout `{description.layout_name}` "
        f"(`{description.layout.model_dump_json(exclude_defaults=True)}`), {description.state.tokens:,} tokens; "
        f"sequences of {description.sequence_length}.",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        'model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")',
        "```",
        "",
        f"- A text begins with bos, {_named(special.bos, names)}, which the tokenizer adds. Names of special tokens in "
        "a text are ordinary characters, as in training.",
        *_prefix_lines(description, names),
    ]
    if description.masked_ids:
        lines.append(
            f"- In training the ids {description.masked_ids} had no probability (mask_zero_weight_ids). `transformers` "
            "cannot mask them: it gives them an untrained probability, so all other ids get too little. `generate` "
            "never takes them; `colophon lm-eval` masks them."
        )
    if exported.different:
        lines.append(
            "- Texts with names of special tokens may get different ids than in training: "
            f"{len(exported.different)} of {exported.num_texts} hard texts do."
        )
    return "\n".join(lines) + "\n"


def _prefix_lines(description: Description, names: Mapping[int, str]) -> list[str]:
    """The ids that the model's layout puts around a text."""
    layout, special = description.layout, description.tokenizer.special
    boc, eoc = _named(special.boc, names), _named(special.eoc, names)
    if isinstance(layout, MetaTokensLayout):
        meta = special.meta[: layout.num_meta_tokens]
        tokens = ", ".join(_named(token, names) for token in meta)
        return [
            f"- Its own prefix has meta tokens and no metadata: bos, boc {boc}, {tokens}, eoc {eoc}. Build it from "
            f"ids: `[{', '.join(map(str, (special.bos, special.boc, *meta, special.eoc)))}, *ids of the text]`."
        ]
    if isinstance(layout, PrependLayout | AppendLayout):
        place, parts = "before", (f"{special.boc}, *ids of the metadata, {special.eoc}", "*ids of the text")
        if isinstance(layout, AppendLayout):
            place, parts = "after", parts[::-1]
        return [
            f"- Metadata, `{layout.template}`, is {place} the text, between boc {boc} and eoc {eoc}. Build the row "
            f"from ids, `[{special.bos}, {', '.join(parts)}]`, not from a string: metadata and text were tokenized "
            f"apart. The metadata has at most {layout.max_metadata_tokens} tokens; further ones are cut."
        ]
    return ["- This layout has nothing else before a text."]


def _named(token_id: int, names: Mapping[int, str]) -> str:
    return f"{token_id} (`{names[token_id]}`)"
