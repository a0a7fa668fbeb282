# make demo | test | lint. Each sets up $(VENV) by itself the first time, and re-uses it afterwards.
PYTHON ?= python3.10
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.mksgn-installed
DEMO := runs/demo

.PHONY: demo test lint setup schema clean

# The stamp names the checkout that the environment points at: a re-used VENV is turned to this one.
setup:
	@if [ ! -x $(BIN)/python ]; then $(PYTHON) -m venv $(VENV); fi
	@if [ "$$(cat $(STAMP) 2>/dev/null)" != "$(CURDIR)" ] || [ pyproject.toml -nt $(STAMP) ] || [ constraints.txt -nt $(STAMP) ]; then \
		echo "setting up $(VENV) (about two minutes the first time)"; \
		$(BIN)/python -m pip install -q -c constraints.txt -e '.[lava,dev]' && echo "$(CURDIR)" > $(STAMP); \
	fi

demo: setup
	$(BIN)/torchrun --standalone --nproc-per-node 2 -m mksgn.train demo --data synthetic --out $(DEMO)
	$(BIN)/mksgn-export $(DEMO)/model.pt --to nir --quantize 8 --calibration synthetic --verify 20
	$(BIN)/mksgn-bench run $(DEMO)/model.nir --data synthetic --backend lava --precision fixed -o $(DEMO)

# One thread in torch, as the commands set it: the children that tests start share two cores with Lava's Processes.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# mypy sees the packages under their installed names through a folder of links.
lint: setup
	@mkdir -p .links/mksgn && for d in train export deploy bench; do ln -sfn ../../$$d .links/mksgn/$$d; done
	$(BIN)/ruff check .
	MYPYPATH=.links $(BIN)/mypy --namespace-packages --explicit-package-bases -p mksgn.train -p mksgn.export -p mksgn.deploy -p mksgn.bench

schema: setup
	$(BIN)/python -m mksgn.bench.record > bench/data/run.schema.json

clean:
	rm -rf runs .links .mypy_cache .ruff_cache .pytest_cache
