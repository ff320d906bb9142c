# One target per stage; each installs what it needs. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COLOPHON := $(BIN)/colophon
RECIPE ?= demo
ARGS ?=

# torch is installed first and alone: an unpinned torch, or one that another package requires, brings gigabytes of CUDA.
STAMP := $(VENV)/.installed
$(STAMP): constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.PHONY: help setup demo run annotate tokenize pack train verify submit docs check lint types test test-slow test-cluster test-image browser screenshots bench bench-scale bench-trainer known-answer gpu soak clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(STAMP) ## install .venv from constraints.txt; does nothing when it is up to date

# Each line is a complete command. Models are trained once: a new model would make annotations stale.
DEMO := out/demo
$(DEMO)/models/%.bin: $(DEMO)/corpus.json
	$(COLOPHON) train-classifier --train $(DEMO)/labels/$*_train.parquet --test $(DEMO)/labels/$*_test.parquet \
	  --output $@
$(DEMO)/models/demo.tiktoken: $(DEMO)/corpus.json
	$(COLOPHON) train-tokenizer --input '$(DEMO)/corpus/*.parquet' --vocabulary-size 8192 --output $@
$(DEMO)/corpus.json: | $(STAMP)
	$(COLOPHON) demo-corpus --output $(DEMO)

demo: setup $(DEMO)/models/quality.bin $(DEMO)/models/topic.bin $(DEMO)/models/demo.tiktoken ## run the whole job on text of this machine, into out/demo
	$(COLOPHON) run demo --rebuild --executor ray
	$(COLOPHON) verify demo
	$(COLOPHON) train demo --overwrite
	$(COLOPHON) evaluate demo --name plain --name prepend-url --documents 40
	$(COLOPHON) report demo --charts $(DEMO)/report/charts
	$(COLOPHON) inspect demo --document 7 --layout prepend-url --sequence 7 --tokens 120
	@echo
	@echo 'The page of the run, and what metadata did to the loss of two tiny models:'
	@echo '  $(DEMO)/report/report.html'
	@echo '  $(DEMO)/report/charts/what-metadata-does-to-the-loss-of-the-same-texts.png'
	@echo
	@echo 'More commands:'
	@echo '  $(COLOPHON) inspect demo --layout append-topic --sequence 3    roles coloured, tokens without loss weight dimmed'
	@echo '  $(COLOPHON) view demo                                          search and read the documents in a browser'
	@echo '  $(COLOPHON) run demo                                           nothing is done twice'
	@echo '  $(COLOPHON) run demo --set output.path=out/local               the same files without Ray: local processes'
	@echo '  $(COLOPHON) export demo --to out/demo-annotated                Parquet with the annotations as columns'
	@echo '  head -n 3 $(DEMO)/training/prepend-url/metrics.jsonl'

run: setup ## annotate, tokenize and pack RECIPE (a file or a name: make run RECIPE=web)
	$(COLOPHON) run $(RECIPE) $(ARGS)

annotate tokenize pack verify: setup ## run one stage of RECIPE
	$(COLOPHON) $@ $(RECIPE) $(ARGS)

train: setup ## train on the packed shards of RECIPE
	$(COLOPHON) train $(RECIPE) $(ARGS)

submit: setup ## run RECIPE on the Ray cluster at ADDRESS=http://HOST:8265
	$(COLOPHON) submit $(RECIPE) --address $(ADDRESS) $(ARGS)

docs: setup ## write the generated pages of docs/ from the code, and build the site, into out/docs
	$(BIN)/python -m colophon.pipeline.cli.reference > docs/commands.md
	$(BIN)/python -m colophon.pipeline.recipe.reference > docs/recipe-reference.md
	$(BIN)/python -m benchmarks.cost page > docs/cost.md
	$(BIN)/python docs/python_reference.py > docs/python-reference.md
	$(BIN)/python docs/build_site.py
	@echo 'open out/docs/site/index.html, or serve it, with its search: $(BIN)/python -m http.server --directory out/docs/site'

check: lint types ## run ruff and mypy

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

test: setup ## run the tests, on one process more than there are cores; a quarter of an hour on two
# Where PYTHONDONTWRITEBYTECODE is set, each of a thousand processes that tests start would compile our modules again.
	$(BIN)/python -m compileall -q colophon annotators pipeline shards trainer benchmarks tests
	$(BIN)/pytest --numprocesses auto --dist loadgroup $(ARGS)

test-slow: setup ## run the tests that `make test` leaves out for their time: some minutes
	$(BIN)/pytest -m slow $(ARGS)

browser: setup ## test the report and the live page in this machine's Chromium, which must be there
	COLOPHON_NEEDS_BROWSER=1 $(BIN)/pytest tests/browser $(ARGS)

screenshots: setup ## write the pictures in docs/images, with this machine's Chromium
	$(BIN)/python -m tests.browser.screenshots

test-cluster: setup ## lose connections, drivers, nodes and heads of real Ray clusters, run Ray in a Slurm job: ten minutes, Linux
	$(BIN)/pytest -m cluster tests/deploy $(ARGS)

test-image: setup ## run the commands of deploy/Dockerfile in an environment of their own: some minutes, a gigabyte
	$(BIN)/python -m tests.deploy.image

bench: setup ## measure the whole job beside other tools, each part alone, scaling: about an hour, 7 GB in out/bench
	test -x out/bench/dolma/bin/python || $(BIN)/python -m benchmarks install-dolma || true
	$(BIN)/python -m benchmarks $(ARGS)

bench-scale: setup ## measure plans and runs of 10,000 to 1,000,000 partitions: hours
	$(BIN)/python -m benchmarks.scale $(ARGS)

bench-trainer: setup ## measure the trainer beside a plain loop and Hugging Face's, on the GPU if there is one
	$(BIN)/python -m benchmarks.trainer $(ARGS)

known-answer: setup ## train tiny models on text whose exact loss is known, with and without its class: ten minutes
	$(BIN)/python examples/known_answer/study.py $(ARGS)

gpu: setup ## check and measure the trainer on this machine's GPU, in the order of worth: nine minutes
	$(BIN)/python -m benchmarks.gpu $(ARGS)

soak: setup ## run for 20 minutes with random faults and compare with undisturbed runs; SEED=1 for other faults
	$(BIN)/python -m tests.soak --seed $(or $(SEED),0) $(ARGS)

clean: ## remove the environment, the outputs and the caches
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
