# make demo and make test each do the set-up that they need on a fresh machine, then their job; test also wants a browser and such.
PY := .venv/bin/python

.PHONY: demo test quick lint core bench docs fuzz release setup

# Two stamps: of the core with the demo's photographs, and of everything, which holds the core. pip takes nothing out of .venv, so
# either may come first.
setup: .venv/everything

.venv/core: pyproject.toml constraints.txt scripts/setup.sh
	bash scripts/setup.sh demo

.venv/everything: pyproject.toml constraints.txt scripts/setup.sh
	bash scripts/setup.sh everything

.venv/tools: .venv/everything scripts/test_tools.sh
	bash scripts/test_tools.sh

demo: .venv/core
	$(PY) -m nestling demo

# make test CPU=avx2: as a processor without AVX-512 and 8-bit dot products sees it. torch, oneDNN, NumPy and OpenBLAS have switches;
# XNNPACK and ONNX Runtime have none, so the tests that hang on their kernels run in an emulator (about 25 minutes more).
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR" OPENBLAS_CORETYPE=Haswell

test: setup .venv/tools
ifeq ($(CPU),avx2)
	$(AVX2) $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile
	qemu-x86_64 -cpu max $(PY) -m pytest -p no:xdist -m kernels
else
	$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile
endif

# Hand-written C and C++; what templates/ print is laid out by them.
C_FILES = $(shell find nestling tests -name '*.[ch]' -o -name '*.cpp')

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	.venv/bin/clang-format --dry-run -Werror $(C_FILES)

# The core without torch, as somebody gets it: a wheel in a new environment, every command. About 2 minutes.
core: setup
	bash scripts/core_check.sh

# make quick: before each commit, under 3 minutes on two cores. The linters, and half of the tests: those of the ground floors
# (data, graph, models, preprocessing, files), of the C that is printed and of what the device reads. What is left out of these
# folders takes longest there; what trains, exports, packs or times is too slow altogether. Measured by processor time,
# file by file: 200 seconds of tests in two processes, 20 of linters.
QUICK := tests/data tests/graph tests/models tests/preprocess tests/quantization tests/scores tests/formats/c tests/test_*.py \
	$(addprefix tests/,artifacts/test_import_input.py artifacts/test_import_model.py artifacts/test_manifest.py) \
	$(addprefix tests/,embedding/test_head.py formats/onnx/test_onnx_files.py formats/tflite/test_read_tflite.py) \
	tests/fuzz/test_places.py tests/measure/test_answers.py tests/measure/test_trace.py \
	$(addprefix tests/device/test_,complain_c.py head_bounds.py head_file.py hostile_heads.py images_c.py order.py replay.py) \
	tests/training/test_fake_quant.py tests/training/test_norms.py tests/cli/test_tables.py
NOT_QUICK := $(addprefix --ignore=tests/formats/c/test_,boards.py host.py packed.py virtual.py) \
	$(addprefix --ignore=tests/,data/test_demo_set.py models/test_capture.py models/test_lacking.py) \
	--deselect=tests/test_docs.py::test_a_block_does_what_it_says

quick: lint
	$(PY) -m pytest -q -n 2 --dist loadfile -m "not slow and not kernels" $(QUICK) $(NOT_QUICK)

# tflite_speed.py wants another environment, quantization.py takes --data as well: see their --help
bench: setup
	for script in features accuracy integers quantization onnx_weights others; do $(PY) benchmarks/$$script.py || exit 1; done

fuzz: setup
	$(PY) -m tests.fuzz.fuzz_readers --seconds 300
	$(PY) -m tests.fuzz.fuzz_c_readers --seconds 300

# site/: the pages of docs/, which fetch nothing when they are built or read. A link that leads nowhere is an error, and so is a page
# that nav in mkdocs.yml lacks; --quiet would hide both.
docs: setup
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

# dist/ for the version that nestling/__init__.py and the changelog name; nothing is uploaded
release: setup
	bash scripts/release.sh
