# make demo and make test each do all the set-up on a fresh machine, then their job.
PY := .venv/bin/python

.PHONY: demo test lint bench setup

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt scripts/setup.sh
	bash scripts/setup.sh

demo: setup
	$(PY) -m nestling demo

test: setup
	$(PY) -m pytest

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: setup
	for script in benchmarks/*.py; do $(PY) $$script; done
