"""The documents that all models of an evaluation held out of their training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from colophon.shards.manifest import read_manifest
from colophon.shards.outputs import TOKENS
from colophon.shards.stores.places import RunPlace
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.document_crops import RunDocuments
from colophon.trainer.evaluation.settings import EvaluatedModel

_REMEDY = "Set validation_output to a run with other documents, or give one as --output"


def held_out_documents(models: Sequence[EvaluatedModel]) -> RunDocuments:
    """The documents of the models' run that none of them was trained on.

    Raises:
        ShardError: the run has no manifest or no token files.
        TrainerError: the models are of different runs, have no such document in common, or the documents have changed.
    """
    output = _common_output(models)
    common: Mapping[str, set[int]] = _documents(models[0])
    for model in models[1:]:
        own = _documents(model)
        common = {partition: found & own.get(partition, set()) for partition, found in common.items()}
    if not any(common.values()):
        counts = ", ".join(f"{model.name}: {sum(map(len, _documents(model).values())):,}" for model in models)
        raise TrainerError(
            f"{output} has no document that every model held out of its training ({counts}): validation_rows and seed "
            f"should be the same. {_REMEDY}; --output {output} reads documents that were trained on too"
        )
    _check_unchanged(models, output)
    return RunDocuments(output, only={partition: sorted(found) for partition, found in common.items()})


def _documents(model: EvaluatedModel) -> dict[str, set[int]]:
    return {part.partition: set(part.documents) for part in model.trained.held_out}


def _common_output(models: Sequence[EvaluatedModel]) -> RunPlace:
    outputs = {model.layout.output for model in models}
    output = outputs.pop()
    if outputs or output is None:
        raise TrainerError(f"the models were trained on different runs, which have no documents in common. {_REMEDY}")
    return output


def _check_unchanged(models: Sequence[EvaluatedModel], output: RunPlace) -> None:
    tokens = read_manifest(output).outputs.get(TOKENS)
    now = {record.partition: record.sha256 for record in tokens.records} if tokens else {}
    for model in models:
        for part in model.trained.held_out:
            found = now.get(part.partition, "missing")
            if part.tokens_sha256 is not None and found != part.tokens_sha256:
                raise TrainerError(
                    f"the documents of {output} have changed since {model.name} was trained, so those that it held out "
                    f"are unknown: tokens of {part.partition}: {part.tokens_sha256[:12]} -> {found[:12]}. {_REMEDY}"
                )
