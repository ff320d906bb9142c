"""lm_eval with our model type, compared with scores by hand and with lm_eval's own model on an export."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.errors import TrainerError
from colophon.trainer.export.model import export_model
from colophon.trainer.inference.likelihood import LikelihoodScorer
from colophon.trainer.inference.trained_model import TrainedModel
from tests.pipeline.project import colophon, run, write_project
from tests.trainer.inference.scored import CONTEXTS, by_hand, expected_prefix, ids_of, scorer_of
from tests.trainer.models import drawn_model, layout_for, small_tokenizer

QUESTIONS = [
    {
        "question": f"the {word} of {number}:",
        "choices": [" a thing", " an inning", " better", f" {word}"],
        "label": label,
    }
    for number, (word, label) in enumerate(
        [("cat", 0), ("dog", 1), ("hen", 2), ("bee", 3), ("ant", 1), ("cow", 2), ("pig", 0), ("owl", 3), ("elk", 2)]
    )
]
TASK = """
task: local_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
  cache_dir: {cache}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: ""
metric_list:
  - metric: acc
metadata:
  version: 1
"""


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return small_tokenizer(tmp_path)


@pytest.fixture
def trained(tokenizer: Tokenizer) -> TrainedModel:
    return drawn_model(tokenizer)


@pytest.fixture
def lm_eval(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    return pytest.importorskip("lm_eval", reason="the extra eval is not installed")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A directory with a task of nine questions."""
    directory = tmp_path / "tasks"
    directory.mkdir()
    data = directory / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    (directory / "local.yaml").write_text(TASK.format(data=data, cache=tmp_path / "cache"))
    return directory


@pytest.fixture
def small(tokenizer: Tokenizer, task: Path, lm_eval: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Tokenizer, Path]:
    """A tokenizer and a task for lm_eval's command line, without its index of tasks, which costs half a minute."""
    from lm_eval import tasks

    monkeypatch.setattr(tasks, "TaskManager", partial(tasks.TaskManager, include_defaults=False))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # lm_eval sets it
    return tokenizer, task


def requests_of(pairs: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [SimpleNamespace(args=pair) for pair in pairs]


@pytest.mark.parametrize("case", CONTEXTS)
def test_the_accuracy_of_an_lm_eval_task_equals_that_computed_by_hand(
    trained: TrainedModel, tokenizer: Tokenizer, lm_eval: Any, task: Path, case: str
) -> None:
    from lm_eval.tasks import TaskManager

    from colophon.trainer.export.lm_eval_model import ColophonLM

    settings, context, described = CONTEXTS[case]
    export_model(trained, tokenizer=tokenizer, layout=layout_for(tokenizer, settings), to=task / "model")
    model = ColophonLM(pretrained=str(task / "model"), context=context, device="cpu", batch_size=3)
    tasks = TaskManager(include_path=str(task), include_defaults=False)
    found = lm_eval.simple_evaluate(model=model, tasks=["local_choice"], task_manager=tasks, bootstrap_iters=0)
    prefix, right = expected_prefix(tokenizer, described), 0
    for question, sample in zip(QUESTIONS, found["samples"]["local_choice"], strict=True):
        context_ids = ids_of(tokenizer, str(question["question"]))
        scores = [
            by_hand(trained, prefix, context_ids, ids_of(tokenizer, choice))[0] for choice in list(question["choices"])
        ]
        assert [float(one[0]) for one in sample["filtered_resps"]] == pytest.approx(scores, abs=1e-4)
        right += scores.index(max(scores)) == question["label"]
    assert found["results"]["local_choice"]["acc,none"] == pytest.approx(right / len(QUESTIONS))


def test_without_a_context_results_equal_lm_evals_own_model_on_the_export(
    tmp_path: Path, trained: TrainedModel, tokenizer: Tokenizer, lm_eval: Any
) -> None:
    from lm_eval.models.huggingface import HFLM

    from colophon.trainer.export.lm_eval_model import ColophonLM

    export_model(trained, tokenizer=tokenizer, layout=layout_for(tokenizer), to=tmp_path / "model")
    ours = ColophonLM(pretrained=str(tmp_path / "model"), device="cpu", batch_size="auto")
    theirs = HFLM(pretrained=str(tmp_path / "model"), device="cpu", dtype="float32", batch_size=2)
    pairs = requests_of([("the cat", " sat"), ("", "on"), ("in ", "the"), ("x\n\n", "yz"), ("a" * 70, "b")])
    expected = theirs.loglikelihood(pairs, disable_tqdm=True)
    found = ours.loglikelihood(pairs)
    assert [score for score, _ in found[:-1]] == pytest.approx([score for score, _ in expected[:-1]], abs=1e-4)
    assert [greedy for _, greedy in found[:-1]] == [greedy for _, greedy in expected[:-1]]
    texts = requests_of([("the thing is on the mat",), ("b",)])
    theirs.add_bos_token = False  # it puts bos before a whole text itself
    assert ours.loglikelihood_rolling(texts) == pytest.approx(theirs.loglikelihood_rolling(texts), abs=1e-4)
    theirs.add_bos_token = None
    prompts = requests_of([("the cat", {"until": ["q"], "max_gen_toks": 9}), ("on", {"max_gen_toks": 5, "until": []})])
    assert ours.generate_until(prompts) == theirs.generate_until(prompts, disable_tqdm=True)


def test_a_training_run_loads_without_an_export(
    tmp_path: Path, tokenizer: Tokenizer, lm_eval: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from colophon.trainer.export.lm_eval_model import ColophonLM

    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    assert run().code == 0
    assert colophon("train", "recipe.toml").code == 0
    assert colophon("export-model", "recipe.toml", "--name", "tiny", "--to", "model").code == 0
    context = {"url": "https://a.b/c"}
    there = ColophonLM(output="out", name="tiny", context=context, device="cpu")
    exported = ColophonLM(pretrained="model", context=context, device="cpu")
    pairs = requests_of([("the reader", " and")])
    assert there.get_model_info() == exported.get_model_info()
    assert there.loglikelihood(pairs)[0][0] == pytest.approx(exported.loglikelihood(pairs)[0][0], abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give pretrained=DIRECTORY"),
        ({"pretrained": "a", "output": "b"}, "give either"),
        ({"pretrained": "a", "dtype": "float8"}, "available: float32, bfloat16"),
        ({"pretrained": "nowhere"}, "nowhere: not a model that Colophon exported"),
        ({"max_lenght": 40}, "unknown model argument 'max_lenght'; available: pretrained, output, name, step, context"),
        ({"pretrained": "a", "max_length": "long"}, "max_length must be a number of tokens, got 'long'"),
        ({"pretrained": "a", "device": "meta:x"}, "device 'meta:x' cannot be used: "),
    ],
)
def test_invalid_model_arguments_are_refused(lm_eval: Any, arguments: dict[str, str], message: str) -> None:
    from colophon.trainer.export.lm_eval_model import ColophonLM

    with pytest.raises(TrainerError, match=message):
        ColophonLM(**arguments)


@pytest.mark.parametrize(
    ("case", "arguments"),
    [
        ("none", ["--model_args", "dtype=float32"]),
        ("a string", ["--context", "meta:https://a.b/?c=d"]),
        ("fields", ["--meta", "topic=art", "--meta", "level=3", "--batch_size", "2"]),
    ],
)
def test_the_command_runs_a_local_task_on_an_export(
    trained: TrainedModel, small: tuple[Tokenizer, Path], case: str, arguments: list[str]
) -> None:
    tokenizer, task = small
    export_model(trained, tokenizer=tokenizer, layout=layout_for(tokenizer), to=task / "model")
    done = colophon("lm-eval", str(task / "model"), *arguments, *options_of(task))
    assert done.code == 0, done.err
    assert accuracy_in(task) == pytest.approx(accuracy_of(scorer_of(trained, tokenizer, case)))
    assert f"{accuracy_in(task):.4f}" in done.out


def test_lm_evals_own_command_runs_our_model_type(
    trained: TrainedModel, small: tuple[Tokenizer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.__main__ import cli_evaluate

    tokenizer, task = small
    export_model(trained, tokenizer=tokenizer, layout=layout_for(tokenizer), to=task / "model")
    model = ["--model", "hf", "--model_args", f"pretrained={task / 'model'},dtype=float32"]
    monkeypatch.setattr(sys, "argv", ["lm-eval", *model, *options_of(task)])
    cli_evaluate()
    assert accuracy_in(task) == pytest.approx(accuracy_of(scorer_of(trained, tokenizer, "none")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--tasks", "no_such"],
            r"lm_eval has no task no_such: `lm-eval ls tasks` lists its own tasks; .* has local_choice\)",
        ),
        (
            ["--tasks", "local_choice", "--model_args", "max_lenght=40"],
            "unknown model argument 'max_lenght'; available: ",
        ),
        (["--tasks", "local_choice", "--batch_size", "x"], "batch_size must be a number of rows or auto, got 'x'"),
        (["--tasks", "local_choice", "--meta", "place=x"], "has no metadata field 'place' before a text"),
    ],
)
def test_errors_of_lm_eval_are_one_line(
    trained: TrainedModel, small: tuple[Tokenizer, Path], arguments: list[str], message: str
) -> None:
    tokenizer, task = small
    export_model(trained, tokenizer=tokenizer, layout=layout_for(tokenizer), to=task / "model")
    done = colophon("lm-eval", str(task / "model"), *arguments, "--include_path", str(task))
    assert done.code == 2
    assert re.search(message, done.err.splitlines()[-1])
    assert "Traceback" not in done.err


def test_debug_prints_the_traceback_of_lm_eval(small: Any, described: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: int("x"))
    done = colophon("lm-eval", described, "--tasks", "x")
    assert "Traceback" not in done.err
    shown = colophon("--debug", "lm-eval", described, "--tasks", "x")
    assert "Traceback" in shown.err
    assert "in main" in shown.err
    assert (done.code, shown.code) == (1, 1)


def test_without_cuda_and_without_a_device_it_runs_on_the_cpu(
    trained: TrainedModel, small: tuple[Tokenizer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tokenizer, task = small
    export_model(trained, tokenizer=tokenizer, layout=layout_for(tokenizer), to=task / "model")
    done = colophon("lm-eval", str(task / "model"), *options_of(task))
    assert done.code == 0, done.err
    (written,) = (task / "results").rglob("results_*.json")
    assert json.loads(written.read_text())["config"]["device"] == "cpu"


def options_of(task: Path) -> list[str]:
    place = ["--include_path", str(task), "--output_path", str(task / "results")]
    return ["--tasks", "local_choice", *place]


def accuracy_in(task: Path) -> float:
    (written,) = (task / "results").rglob("results_*.json")
    return float(json.loads(written.read_text())["results"]["local_choice"]["acc,none"])


def accuracy_of(scorer: LikelihoodScorer) -> float:
    right = 0
    for question in QUESTIONS:
        scores = scorer.likelihoods([(str(question["question"]), choice) for choice in list(question["choices"])])
        right += max(range(4), key=lambda k: scores[k].log_likelihood) == question["label"]
    return right / len(QUESTIONS)


@pytest.fixture
def described(tmp_path: Path) -> str:
    """A directory with only the description of an export."""
    (tmp_path / "colophon.json").write_text("{}")
    return str(tmp_path)


def test_without_lm_eval_the_command_names_the_extra(monkeypatch: pytest.MonkeyPatch, described: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval" or name.endswith("lm_eval_model")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    done = colophon("lm-eval", described, "--tasks", "x")
    assert (done.code, done.line) == (2, "lm-eval needs the package lm_eval: pip install 'colophon[eval]'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--meta", "topic"], "--meta topic: write field=value"),
        (["--meta", "topic=a", "--context", "empty"], "give either --context or --meta"),
    ],
)
def test_an_invalid_context_is_one_line(lm_eval: Any, described: str, arguments: list[str], message: str) -> None:
    done = colophon("lm-eval", described, "--tasks", "x", *arguments)
    assert (done.code, done.line) == (2, message)


def test_a_directory_without_an_export_is_one_line(tmp_path: Path) -> None:
    done = colophon("lm-eval", str(tmp_path), "--tasks", "x")
    assert (done.code, done.line) == (2, f"{tmp_path}: not a directory that export-model wrote")
