# `make demo` and `make test` work on a new machine: they make .venv and install what they need, once.
PYTHON ?= python3
BIN := .venv/bin
DEPTHS := block1_conv2,block2_conv2,block3_conv3,block4_conv3,block5_conv3

.PHONY: demo test lint bench clean

demo: .venv/installed
	$(BIN)/cnnviz predict gallery/photos/cat.jpg --model vgg16-mini --fit whole --top 3
	$(BIN)/cnnviz featuremaps gallery/photos/cat.jpg --model vgg16-mini --layers $(DEPTHS) -o pictures
	$(BIN)/cnnviz filters --layer block4_conv3 --model vgg16-mini -o pictures/filters_block4_conv3.png
	@echo "The pictures are in $(CURDIR)/pictures: what five layers see in the cat, from edges to parts, and what filters look for."
	@echo "Next: $(BIN)/cnnviz report gallery/photos/cat.jpg --model vgg16-mini (one page about one picture); $(BIN)/cnnviz --help lists the rest."

test: .venv/installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed-bench
	$(BIN)/python tests/benchmarks/startup.py
	$(BIN)/python tests/benchmarks/sheets.py
	$(BIN)/python tests/benchmarks/synthesis.py
	$(BIN)/python tests/benchmarks/attribution.py

clean:
	rm -rf .venv pictures build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cnnviz needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/installed-%: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch .venv/installed $@
