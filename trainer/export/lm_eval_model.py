"""The model type `colophon` of lm_eval: a trained model that reads a context before every text.

    colophon lm-eval out/web-model --tasks hellaswag --context empty

The context is added as ids, bos first; lm_eval and its tasks never see it.
"""

from __future__ import annotations

import argparse
import inspect
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from pydantic import ValidationError

from colophon.shards.common.errors import one_line
from colophon.shards.manifest import read_manifest
from colophon.shards.tokenizer.tokenizer import TokenizerConfig, load_tokenizer
from colophon.trainer.errors import TrainerError
from colophon.trainer.export.model import LoadedExport, load_export
from colophon.trainer.inference.likelihood import ContextSetting, LikelihoodScorer
from colophon.trainer.inference.sampling import SamplingSettings
from colophon.trainer.inference.trained_model import load_trained
from colophon.trainer.inference.vocabulary import check_tokenizer

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_BATCH_SIZE = 8
_NO_TASK = "Tasks not found: "
_log = logging.getLogger(__name__)


class ColophonLM(LM):  # type: ignore[misc]  # lm_eval is type-checked only where it is installed
    """An lm_eval model: an export of `colophon export-model`, or a training run where it was trained."""

    def __init__(
        self,
        *,
        pretrained: str | None = None,
        output: str | None = None,
        name: str | None = None,
        step: int | None = None,
        context: ContextSetting | None = None,
        batch_size: int | str = _BATCH_SIZE,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        device: str | None = None,
        dtype: str = "float32",
        **unknown: object,
    ) -> None:
        """Load the model.

        Args:
            pretrained: directory of an export.
            output: alternatively the `output.path` of a run; its recipe's tokenizer file must still exist.
            name: the training run under `output`.
            step: the checkpoint's; None: the newest.
            context: see `trainer.inference.likelihood.prefix_of`. None is `none`: lm_eval's command line gives None.
            batch_size: rows at a time, or auto, which is 8.
            max_batch_size: lm_eval's limit for batch sizes that it searches for; not used.
            max_length: inputs of a row; None: as in training.
            device: None: CUDA where it is available, else the CPU.
            dtype: the type of activations and matrix products, float32 or bfloat16.
            unknown: refused; lm_eval passes on every argument of `--model_args`.

        Raises:
            TrainerError: the model, context, device or argument does not exist or is invalid.
        """
        super().__init__()
        if unknown:
            known = [name for name in inspect.signature(ColophonLM).parameters if name != "unknown"]
            raise TrainerError(f"unknown model argument {next(iter(unknown))!r}; available: {', '.join(known)}")
        if dtype not in _DTYPES:
            raise TrainerError(f"unknown dtype {dtype!r}; available: {', '.join(_DTYPES)}")
        if max_length is not None and not (isinstance(max_length, int) and max_length > 0):
            raise TrainerError(f"max_length must be a number of tokens, got {max_length!r}")
        loaded = _load(pretrained, output, name, step=step, device=_device(device), dtype=_DTYPES[dtype])
        self._device = loaded.trained.device
        self._scorer = LikelihoodScorer(
            loaded.trained,
            layout=loaded.layout,
            tokenizer=loaded.tokenizer,
            context="none" if context is None else context,
            batch_size=_batch_size(str(batch_size)),
            max_length=max_length,
            report=_log.warning,
        )
        self._name = f"{loaded.trained.name}-{loaded.trained.state.step}"

    @property
    def tokenizer_name(self) -> str:
        """The name under which lm_eval caches requests."""
        return str(self._scorer.tokenizer.sha256)

    @property
    def batch_size(self) -> int:
        """Rows at a time."""
        return self._scorer.batch_size

    @property
    def max_length(self) -> int:
        """Inputs of a row."""
        return self._scorer.max_length

    def get_model_info(self) -> dict[str, Any]:
        """Entries that lm_eval adds to its results: the model, and the context before every text."""
        prefix = self._scorer.prefix
        return {"model": self._name, "prefix_ids": prefix, "prefix": self._scorer.tokenizer.decode(prefix)}

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood in nats of each request's continuation after its context, and whether it is the greedy one."""
        pairs = [request.args for request in requests]
        found = [(one.log_likelihood, one.is_greedy) for one in self._scorer.likelihoods(pairs)]
        self._cache("loglikelihood", requests, found)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood in nats of each request's text."""
        found = self._scorer.text_likelihoods([request.args[0] for request in requests])
        self._cache("loglikelihood_rolling", requests, found)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """A continuation of each request's context."""
        found = list(self._generate(requests))
        self._cache("generate_until", requests, found)
        return found

    def _generate(self, requests: Sequence[Any]) -> Iterator[str]:
        for request in requests:
            prompt, asked = request.args
            settings = normalize_gen_kwargs(asked)
            sampling = SamplingSettings(
                max_tokens=settings["max_gen_toks"],
                temperature=settings["temperature"] if settings["do_sample"] else 0.0,
                top_k=settings.get("top_k"),
                top_p=settings.get("top_p"),
            )
            yield self._scorer.generate(prompt, settings=sampling, until=[stop for stop in settings["until"] if stop])

    def _cache(self, kind: str, requests: Sequence[Any], found: Sequence[object]) -> None:
        for request, answer in zip(requests, found, strict=True):
            self.cache_hook.add_partial(kind, request.args, answer)
        if self._scorer.num_cut:
            _log.warning("%d contexts were too long for a row and were cut at their start", self._scorer.num_cut)
            self._scorer.num_cut = 0


register_model("colophon")(ColophonLM)


def main(arguments: Sequence[str]) -> None:
    """Run lm_eval's command line with the model type `colophon`. Ends the process where lm_eval does.

    Raises:
        TrainerError: a task does not exist, or a model argument is invalid.
    """
    from lm_eval.__main__ import cli_evaluate

    own, sys.argv = sys.argv, ["lm-eval", *arguments, *_device_option(arguments)]
    try:
        cli_evaluate()
    except ValueError as error:
        missing = str(error).partition(_NO_TASK)[2]
        if not missing:
            raise
        raise TrainerError(
            f"lm_eval has no task {missing}: `lm-eval ls tasks` lists its own tasks; give yours as a .yaml file, or "
            f"name its directory with --include_path{_included_tasks(arguments)}"
        ) from None
    finally:
        sys.argv = own  # `colophon --debug` reads it


def _device_option(arguments: Sequence[str]) -> list[str]:
    """`--device cpu` where no device is named and there is no CUDA: lm_eval would report CUDA, also in its results."""
    named = any(argument == "--device" or argument.startswith("--device=") for argument in arguments)
    return [] if named or torch.cuda.is_available() else ["--device", "cpu"]


def _included_tasks(arguments: Sequence[str]) -> str:
    """The tasks under --include_path, in brackets; empty without the option."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--include_path")
    place = parser.parse_known_args(arguments)[0].include_path
    if place is None:
        return ""
    from lm_eval.tasks import TaskManager

    found = sorted(TaskManager(include_path=place, include_defaults=False).all_tasks)
    return f" ({place} has {', '.join(found) or 'none'})"


def _load(
    pretrained: str | None,
    output: str | None,
    name: str | None,
    *,
    step: int | None,
    device: torch.device | None,
    dtype: torch.dtype,
) -> LoadedExport:
    if pretrained is not None:
        if output is not None or name is not None or step is not None:
            raise TrainerError("give either pretrained, or output and name (and step)")
        return load_export(Path(pretrained), device=device, dtype=dtype)
    if output is None or name is None:
        raise TrainerError("give pretrained=DIRECTORY of an export, or output=DIRECTORY,name=NAME of a training run")
    trained = load_trained(Path(output), name, step=step, device=device, dtype=dtype)
    try:
        config = TokenizerConfig.model_validate(read_manifest(Path(output)).recipe.get("tokenizer"))
    except ValidationError:
        raise TrainerError(f"{output}: its manifest has no tokenizer: export the model and give pretrained") from None
    if config.is_in_hub:  # a manifest may come from others; it must not choose what is downloaded
        raise TrainerError(f"{output}: its tokenizer is of the Hub: export the model and give pretrained")
    tokenizer = load_tokenizer(config, num_meta_tokens=len(trained.tokenizer.special.meta))
    check_tokenizer(tokenizer, trained.tokenizer, training=name, where=f"{output}/manifest.json")
    return LoadedExport(trained=trained, layout=trained.layout, tokenizer=tokenizer)


def _device(name: str | None) -> torch.device | None:
    """The device called `name`, tested; None for None.

    Raises:
        TrainerError: it cannot be used.
    """
    try:
        return None if name is None else torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise TrainerError(f"device {name!r} cannot be used: {one_line(error)}") from None


def _batch_size(setting: str) -> int:
    if setting.isdigit() and int(setting):
        return int(setting)
    if setting.partition(":")[0] == "auto":
        return _BATCH_SIZE
    raise TrainerError(f"batch_size must be a number of rows or auto, got {setting!r}")
