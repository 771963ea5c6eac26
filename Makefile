# make demo   index real photographs and find them by words
# make test   install what the tests need and run them all
# make lint   ruff and strict mypy
# make bench  the speed and memory table (needs a folder of photos, see benchmarks/README.md)
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
OUT = $(VENV)/.installed

.PHONY: demo test lint bench clean

demo: $(OUT)-demo
	$(RUN) -m mmsearch demo

test: $(OUT)-dev
	$(RUN) -m pytest

lint: $(OUT)-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(OUT)-dev
	$(RUN) benchmarks/indexing.py

$(OUT)-demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable ".[cpu,demo]"
	touch $@

# torch for the tests of the training code: tests/constraints.txt says which, and why
$(OUT)-dev: pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable ".[cpu,demo,heif,train,dev]" --constraint tests/constraints.txt
	touch $@

clean:
	rm -rf $(VENV) indexes/demo
