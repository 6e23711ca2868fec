# `make demo` and `make test` work on a new machine: they make .venv and install what they need, once.
PYTHON ?= python3
BIN := .venv/bin
DEPTHS := block1_conv1,block2_conv1,block3_conv1,block4_conv2,block5_conv3
DRAFT := --model vgg16 --preset draft

.PHONY: demo test lint docs bench clean

demo: .venv/installed
	@echo "1 of 4: feature maps of a cat at five depths of VGG16. The cat is recognizable in blocks 1 and 2, not in 4 and 5."
	@$(BIN)/cnnviz featuremaps gallery/photos/cat.jpg --model vgg16 --layers $(DEPTHS) --top 16 -o pictures
	@echo "2 of 4: feature visualization of eight filters of VGG16's third block: textures. About ten seconds."
	@$(BIN)/cnnviz filters --layer block3_conv3 --filters 0,1,2,4,9,11,13,14 $(DRAFT) --size 64 -o pictures/filters_block3_conv3.png
	@echo "3 of 4: feature visualization of four filters of its fourth block: fur, palms, tiles, scales. Half a minute."
	@$(BIN)/cnnviz filters --layer block4_conv3 --filters 0,2,3,6 $(DRAFT) --size 96 -o pictures/filters_block4_conv3.png
	@echo "4 of 4: attribution of the class espresso in vgg16-mini, the small network that includes its classifier."
	@$(BIN)/cnnviz saliency gallery/photos/coffee.jpg --model vgg16-mini --method grad-cam,smoothgrad -o pictures/coffee_saliency.png
	@echo
	@echo "The images are in $(CURDIR)/pictures; open them. Next, with an image of your own:"
	@echo "  $(BIN)/cnnviz report YOUR.jpg --model vgg16-mini    everything on one page"
	@echo "  $(BIN)/cnnviz filters --layer block5_conv3 --filters 0-7    filters of the last layer"
	@echo "  $(BIN)/cnnviz --help    lists all commands"

test: .venv/installed-test
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/installed-docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --conf-dir gallery/manual . build/manual
	@echo "The manual is in $(CURDIR)/build/manual; open index.html."

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
