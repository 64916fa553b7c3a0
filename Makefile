# make demo and make test each do all the set-up on a fresh machine, then their job.
PY := .venv/bin/python

.PHONY: demo test lint bench fuzz setup

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt scripts/setup.sh
	bash scripts/setup.sh

demo: setup
	$(PY) -m nestling demo

test: setup
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# tflite_speed.py wants another environment, quantization.py takes --data as well: see their --help
bench: setup
	for script in features accuracy integers quantization; do $(PY) benchmarks/$$script.py || exit 1; done

fuzz: setup
	$(PY) tests/fuzz/fuzz_readers.py --seconds 300
