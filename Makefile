# make help lists the targets. Everything is installed into .venv and nowhere else.
.DEFAULT_GOAL := help
PYTHON ?= python3
PY := .venv/bin/python
DATA ?=
LABELS ?=
OUT ?=

.PHONY: help setup demo test lint format bench bench-tables reference docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' \
		| while IFS="$$(printf '\t')" read -r name text; do printf '  make %-14s %s\n' "$$name" "$$text"; done

setup: .venv/installed ## build .venv with the pinned versions (about 6 GB, once)

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Shardwave needs Python 3.11 or later; name one: make PYTHON=python3.11 setup"; exit 1; }
	@echo "Installing PyTorch, DALI and Ray with CUDA into .venv: about 6 GB, a few minutes on a fast line."
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation -e .
	@touch .venv/installed

demo: setup ## the main job on a small data set made here; DATA=folder (LABELS=csv) runs it on your own audio
	$(PY) cli.py demo $(if $(OUT),--out "$(OUT)") $(if $(DATA),--data "$(DATA)") \
		$(if $(LABELS),--labels "$(LABELS)")

test: setup lint ## lint, type check, layering contract and all tests
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: setup ## ruff, mypy and the import contract
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' --no-cache --no-logo

format: setup ## let ruff format the code
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: setup ## measure every stage (about 30 minutes); make bench QUICK=1 takes two
	$(PY) cli.py bench throughput --out runs/bench $(if $(QUICK),--quick)

bench-tables: setup ## write the tables and the picture of the documents anew from bench/results
	$(PY) -m shardwave.bench.report.tables

reference: setup ## write docs/reference.md anew from the commands
	$(PY) -c 'from shardwave import cli, cli_frame; print(cli_frame.reference(cli.main_group), end="")' \
		> docs/reference.md

docs: setup ## build the documentation with the API reference into build/site
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict

clean: ## remove what the tools leave behind (not .venv, not your sets and runs)
	rm -rf .mypy_cache .ruff_cache .pytest_cache *.egg-info build dist
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
