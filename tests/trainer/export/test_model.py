"""Laws of an export: `transformers` gives the logits of our decoder and the ids of our tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
import torch
from safetensors import safe_open

from colophon.shards.tokenizer.hard_texts import hard_texts
from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.errors import TrainerError
from colophon.trainer.export import model as export_module
from colophon.trainer.export.model import export_model, load_export
from colophon.trainer.inference.trained_model import TrainedModel, load_trained
from tests.pipeline.project import colophon, run, write_project
from tests.trainer.models import drawn_model, layout_for, small_tokenizer

SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_embeddings": False},
    "a head a group": {"num_kv_heads": 4},
    "one group": {"num_kv_heads": 1, "rope_base": 10_000.0, "norm_eps": 1e-3},
    "qk_norm": {"qk_norm": True},
    "qk_norm, untied": {"qk_norm": True, "tie_embeddings": False},
}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return small_tokenizer(tmp_path)


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("transformers", reason="the extra eval is not installed")


def without_plain_weights(trained: TrainedModel) -> TrainedModel:
    """Change the norms from 1: otherwise a missing one would not be noticed."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in trained.model.named_parameters():
        if "norm" in name:
            parameter.copy_(torch.empty_like(parameter).uniform_(0.5, 1.5, generator=generator))
    return trained


def random_ids(tokenizer: Tokenizer, *shape: int) -> torch.Tensor:
    return torch.randint(0, tokenizer.num_ids, shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_gives_the_same_logits(
    tmp_path: Path, tokenizer: Tokenizer, transformers: Any, shape: str
) -> None:
    trained = without_plain_weights(drawn_model(tokenizer, **SHAPES[shape]))
    found = export_model(trained, tokenizer=tokenizer, layout=layout_for(tokenizer), to=tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(found.directory)
    assert type(theirs).__name__ == found.architecture
    ids = random_ids(tokenizer, 3, 60)
    ours = trained.logits(ids)[..., : tokenizer.num_ids]
    assert ours.abs().max() > 5, "equal logits would prove nothing"
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours, atol=1e-4, rtol=0)
    assert (theirs.get_output_embeddings().weight is theirs.get_input_embeddings().weight) == (
        trained.model.lm_head is None
    )


@pytest.mark.parametrize("shape", ["tied", "one group", "qk_norm"])
@pytest.mark.parametrize("position", ["prepend", "append"])
def test_generate_of_transformers_gives_our_greedy_text(
    tmp_path: Path, tokenizer: Tokenizer, transformers: Any, shape: str, position: str
) -> None:
    trained = without_plain_weights(drawn_model(tokenizer, **SHAPES[shape]))
    layout = layout_for(tokenizer, {"position": position, "template": "{topic}"})
    special = tokenizer.special
    export_model(trained, tokenizer=tokenizer, layout=layout, to=tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    ids = torch.cat([torch.tensor([[special.bos]]), random_ids(tokenizer, 1, 12)], dim=1)
    ends = {special.eos, special.boc} if position == "append" else {special.eos}
    never = sorted({special.bos, special.pad, special.boc, special.eoc, *special.meta} - ends)
    expected = ids
    for _ in range(30):
        following = trained.logits(expected)[:, -1].index_fill(-1, torch.tensor(never), float("-inf")).argmax(-1)
        expected = torch.cat([expected, following[:, None]], dim=1)
        if int(following) in ends:
            break
    assert theirs.generate(ids, max_new_tokens=30).tolist() == expected.tolist()


def test_its_tokenizer_gives_the_ids_of_training(tmp_path: Path, tokenizer: Tokenizer, transformers: Any) -> None:
    trained = drawn_model(tokenizer)
    export_model(trained, tokenizer=tokenizer, layout=layout_for(tokenizer), to=tmp_path / "model")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    texts = [*hard_texts(tokenizer.backend), *tokenizer.special_names.values()]
    expected = [tokenizer.backend.encode(text).tolist() for text in texts]
    assert theirs(texts, add_special_tokens=False).input_ids == expected
    assert theirs(texts).input_ids == [[tokenizer.special.bos, *ids] for ids in expected]
    assert [theirs.decode(ids) for ids in expected] == texts
    special = tokenizer.special
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (special.bos, special.eos, special.pad)
    assert len(theirs) == tokenizer.num_ids


def test_the_vocabulary_has_no_padding_and_weights_may_be_bfloat16(tmp_path: Path, tokenizer: Tokenizer) -> None:
    trained = drawn_model(tokenizer, tie_embeddings=False)
    assert trained.model.embed_tokens.num_embeddings > tokenizer.num_ids
    to = tmp_path / "model"
    export_model(trained, tokenizer=tokenizer, layout=layout_for(tokenizer), to=to, dtype="bfloat16")
    config = json.loads((to / "config.json").read_text())
    assert (config["vocab_size"], config["dtype"]) == (tokenizer.num_ids, "bfloat16")
    assert len({path.stat().st_mode for path in to.iterdir()}) == 1
    with safe_open(to / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118 - no dict
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            assert weights.get_slice(name).get_shape() == [tokenizer.num_ids, 64]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_export_loads_as_our_own_decoder(tmp_path: Path, tokenizer: Tokenizer, shape: str) -> None:
    masked = (tokenizer.special.bos, tokenizer.special.boc)
    trained = drawn_model(tokenizer, masked_ids=masked, **SHAPES[shape])
    layout = layout_for(tokenizer)
    export_model(trained, tokenizer=tokenizer, layout=layout, to=tmp_path / "model")
    loaded = load_export(tmp_path / "model", device=torch.device("cpu"))
    ids = random_ids(tokenizer, 2, 40)
    ours = trained.logits(ids)[..., : tokenizer.num_ids]
    assert torch.equal(loaded.trained.logits(ids), ours)
    assert torch.isneginf(ours).any(dim=(0, 1)).nonzero()[:, 0].tolist() == sorted(masked)
    assert loaded.layout == layout
    assert (loaded.tokenizer.special, loaded.tokenizer.num_ids) == (tokenizer.special, tokenizer.num_ids)
    texts = pa.array(["the thing 123  \n é", "<|context_begin|>", ""])
    assert loaded.tokenizer.encode_batch(texts).to_pylist() == tokenizer.encode_batch(texts).to_pylist()
    assert (loaded.trained.name, loaded.trained.state) == (trained.name, trained.state)


def test_masked_ids_are_in_the_readme_and_never_generated(tmp_path: Path, tokenizer: Tokenizer) -> None:
    masked = (tokenizer.special.boc, tokenizer.special.bos)
    trained = drawn_model(tokenizer, masked_ids=masked)
    found = export_model(trained, tokenizer=tokenizer, layout=layout_for(tokenizer), to=tmp_path / "model")
    assert sorted(found.masked_ids) == sorted(masked)
    assert f"the ids {list(masked)} had no probability" in (tmp_path / "model" / "README.md").read_text()
    generation = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert set(masked) <= set(generation["suppress_tokens"])


@pytest.mark.parametrize(
    ("settings", "message", "absent"),
    [
        (
            {"position": "meta_tokens", "num_meta_tokens": 2},
            "[{bos}, {boc}, {m1}, {m2}, {eoc}, *ids of the text]",
            "{m3}",
        ),
        ({"position": "plain"}, "This layout has nothing else before a text", "{boc} (`"),
        (
            {"position": "prepend", "template": "{{topic}}", "max_metadata_tokens": 6},
            "[{bos}, {boc}, *ids of the metadata, {eoc}, *ids of the text]",
            "{m1}",
        ),
        (
            {"position": "append", "template": "{{topic}}"},
            "[{bos}, *ids of the text, {boc}, *ids of the metadata, {eoc}]",
            "{m1}",
        ),
    ],
)
def test_the_readme_describes_the_layouts_prefix(
    tmp_path: Path, tokenizer: Tokenizer, settings: dict[str, Any], message: str, absent: str
) -> None:
    special = tokenizer.special
    ids = {name: getattr(special, name) for name in ("bos", "boc", "eoc")}
    ids |= {f"m{number}": token for number, token in enumerate(special.meta, start=1)}
    layout = {key: value.format() if isinstance(value, str) else value for key, value in settings.items()}
    export_model(drawn_model(tokenizer), tokenizer=tokenizer, layout=layout_for(tokenizer, layout), to=tmp_path / "m")
    text = (tmp_path / "m" / "README.md").read_text()
    assert message.format(**ids) in text
    assert absent.format(**ids) not in text
    assert ("metadata and text were tokenized apart" in text) == ("template" in settings)


def test_a_directory_with_content_is_refused_and_an_empty_one_accepted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    trained, layout = drawn_model(tokenizer), layout_for(tokenizer)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for taken in ("full", "full/mine.txt"):
        with pytest.raises(TrainerError, match="exists and is not an empty directory"):
            export_model(trained, tokenizer=tokenizer, layout=layout, to=tmp_path / taken)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export_model(trained, tokenizer=tokenizer, layout=layout, to=tmp_path / "empty")
    assert (tmp_path / "empty" / "config.json").is_file()


def test_a_failed_export_leaves_no_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    before = sorted(tmp_path.rglob("*"))
    no_space = mock.Mock(side_effect=OSError(28, "No space left on device"))
    with mock.patch.object(export_module, "save_tensors", no_space), pytest.raises(TrainerError, match="No space left"):
        export_model(
            drawn_model(tokenizer), tokenizer=tokenizer, layout=layout_for(tokenizer), to=tmp_path / "a" / "model"
        )
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "a"] == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_meta_tokens": 0}, r"num_ids: 275 -> 272; special\.meta: "), ({"pattern": "o200k_base"}, "sha256: ")],
)
def test_a_different_tokenizer_than_the_models_is_refused(
    tmp_path: Path, tokenizer: Tokenizer, settings: dict[str, Any], message: str
) -> None:
    other = small_tokenizer(tmp_path, **settings)
    with pytest.raises(TrainerError, match=rf"\[tokenizer\] is not the one that drawn was trained with: {message}"):
        export_model(drawn_model(tokenizer), tokenizer=other, layout=layout_for(tokenizer), to=tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["colophon.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_export_is_named(tmp_path: Path, tokenizer: Tokenizer, name: str) -> None:
    export_model(drawn_model(tokenizer), tokenizer=tokenizer, layout=layout_for(tokenizer), to=tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(b"{")
    with pytest.raises(TrainerError, match="not a model that Colophon exported"):
        load_export(tmp_path / "model")


def test_the_command_exports_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    layouts = ("--set", "train.tiny.layout=append-quality", "--set", "train.tiny.mask_zero_weight_ids=true")
    assert run(*layouts).code == 0
    assert colophon("train", "recipe.toml", *layouts).code == 0
    command = ("export-model", "recipe.toml", "--name", "tiny", "--to", "model", *layouts)
    done = colophon(*command, "--dtype", "bfloat16")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("model: LlamaForCausalLM, ")
    assert "masked in training" in done.out
    loaded = load_export(Path("model"), device=torch.device("cpu"))
    trained = load_trained(Path("out"), "tiny", device=torch.device("cpu"))
    ids = torch.arange(40)[None]
    ours = trained.logits(ids)[..., : trained.tokenizer.num_ids]
    torch.testing.assert_close(loaded.trained.logits(ids), ours, atol=0.05, rtol=0.05)
    assert loaded.layout.layout.position == "append"
    assert colophon(*command).line == "model exists and is not an empty directory; give another --to"
    elsewhere = ("export-model", "recipe.toml", "--to", "other", "--name")
    other = colophon(*elsewhere, "tiny", "--set", "tokenizer.pattern=o200k_base")
    assert (other.code, "[tokenizer] is not the one that tiny was trained with: sha256: " in other.line) == (2, True)
    none = colophon(*elsewhere, "large")
    assert (none.code, none.line) == (2, "out/training/large: no such training run; available: tiny")
    assert not Path("other").exists()
