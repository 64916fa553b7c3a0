# make demo and make test each do all the set-up on a fresh machine, then their job; test also wants a browser and such.
PY := .venv/bin/python

.PHONY: demo test lint bench fuzz setup

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt scripts/setup.sh
	bash scripts/setup.sh

.venv/tools: .venv/ready scripts/test_tools.sh
	bash scripts/test_tools.sh

demo: setup
	$(PY) -m nestling demo

test: setup .venv/tools
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# tflite_speed.py wants another environment, quantization.py takes --data as well: see their --help
bench: setup
	for script in features accuracy integers quantization onnx_weights others; do $(PY) benchmarks/$$script.py || exit 1; done

fuzz: setup
	$(PY) tests/fuzz/fuzz_readers.py --seconds 300
