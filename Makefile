# `make demo` and `make test` work on a new machine: they make .venv and install what they need, once.
PYTHON ?= python3
BIN := .venv/bin
DEPTHS := block1_conv1,block2_conv1,block3_conv1,block4_conv2,block5_conv3
DRAFT := --model vgg16 --preset draft

.PHONY: demo test lint bench clean

demo: .venv/installed
	@echo "1 of 4: what five layers of VGG16 see in a cat. It is still there in blocks 1 and 2, and lost in blocks 4 and 5."
	@$(BIN)/cnnviz featuremaps gallery/photos/cat.jpg --model vgg16 --layers $(DEPTHS) --top 16 -o pictures
	@echo "2 of 4: what eight filters of VGG16's third block look for: textures. Some ten seconds."
	@$(BIN)/cnnviz filters --layer block3_conv3 --filters 0,1,2,4,9,11,13,14 $(DRAFT) --size 64 -o pictures/filters_block3_conv3.png
	@echo "3 of 4: what four filters of its fourth block look for: fur, palms, tiles, scales. Half a minute."
	@$(BIN)/cnnviz filters --layer block4_conv3 --filters 0,2,3,6 $(DRAFT) --size 96 -o pictures/filters_block4_conv3.png
	@echo "4 of 4: why vgg16-mini, the small network with its classes built in, takes a photograph for an espresso."
	@$(BIN)/cnnviz saliency gallery/photos/coffee.jpg --model vgg16-mini --method grad-cam,smoothgrad -o pictures/coffee_saliency.png
	@echo
	@echo "The pictures are in $(CURDIR)/pictures; open them. Next, with a picture of yours:"
	@echo "  $(BIN)/cnnviz report YOUR.jpg --model vgg16-mini    all of it on one page"
	@echo "  $(BIN)/cnnviz filters --layer block5_conv3 --filters 0-7    what the last layer looks for"
	@echo "  $(BIN)/cnnviz --help    lists the rest"

test: .venv/installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal

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
