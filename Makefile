# make demo   index real photographs and find them by words
# make test   install what the tests need and run them all
# make lint   ruff and strict mypy
# make bench  a small size of every benchmark, ten minutes at most (needs data, see benchmarks/README.md)
# make bench-full  all sizes, the engines and the peers, hours, 20 GB of disk; writes benchmarks/results, the report and the README's figures;
#             MORE=--resume goes on after what a run that was stopped has measured
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
OUT = $(VENV)/.installed

.PHONY: demo test lint bench bench-full clean

TRIED = benchmarks/tried
DATA ?= ../shared/data
WORK ?= $(TRIED)/work
RESULTS = benchmarks/results

demo: $(OUT)-demo
	$(RUN) -m mmsearch demo

test: $(OUT)-dev
	$(RUN) -m pytest --numprocesses auto --dist worksteal

lint: $(OUT)-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(OUT)-dev
	mkdir -p $(TRIED)
	$(RUN) benchmarks/retrieval.py --sets flickr8k coco_free --limit 200 --out $(TRIED)/retrieval.json
	$(RUN) benchmarks/latency.py --sizes 1000 10000 --asked 20 --repeat 2 --near 200 --out $(TRIED)/latency.json
	$(RUN) benchmarks/scale.py --sizes 1000 10000 --repeat 2 --near 200 --out $(TRIED)/scale.json
	$(RUN) benchmarks/indexing.py --limit 2000 --rows 20000 --rounds 1 --scale 2 --out $(TRIED)/indexing.json

# index.py fails where a bar is missed, which is no reason to stop
bench-full: $(OUT)-dev
	mkdir -p $(WORK)
	$(RUN) benchmarks/retrieval.py
	$(RUN) benchmarks/hybrid.py --data $(DATA)/flickr8k --out $(RESULTS)/hybrid.json
	$(RUN) benchmarks/latency.py --sizes 1000 10000 100000 1000000
	$(RUN) benchmarks/queries.py --data $(DATA) --out $(RESULTS)/queries.json
	$(RUN) benchmarks/scale.py $(MORE)
	$(RUN) benchmarks/indexing.py $(MORE)
	$(RUN) benchmarks/encoders.py --work $(WORK)/encoders --prepare
	$(RUN) benchmarks/encoders.py --work $(WORK)/encoders --data $(DATA)/flickr8k
	$(RUN) benchmarks/real_vectors.py --data $(DATA) --out $(WORK)/real
	-$(RUN) benchmarks/index.py --data real --real $(WORK)/real --work $(WORK)
	-for rows in 10000 100000 1000000; do $(RUN) benchmarks/index.py --data clustered-$$rows --work $(WORK); done
	$(RUN) benchmarks/peers.py $(MORE)
	$(RUN) benchmarks/report.py
	$(RUN) benchmarks/readme.py

$(OUT)-demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable ".[cpu,demo]"
	touch $@

# torch for the tests of the training code: tests/constraints.txt says which, and why
$(OUT)-dev: pyproject.toml tests/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable ".[cpu,clip,demo,heif,train,dev]" --constraint tests/constraints.txt
	touch $@

clean:
	rm -rf $(VENV) indexes/demo
