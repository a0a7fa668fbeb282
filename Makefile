# make demo | test | test-all | test-interop | lint. Each sets up its environment the first time and re-uses it afterwards.
PYTHON ?= python3.10
# Another Python gets an environment of its own, without Lava.
VENV ?= $(if $(filter python3.10,$(PYTHON)),.venv,.venv-$(PYTHON))
BIN := $(VENV)/bin
# SpikingJelly 2.0 needs a later Python than Lava supports: an environment of its own.
INTEROP_PYTHON ?= python3.11
INTEROP_VENV ?= .venv-interop
DEMO := runs/demo

.PHONY: demo test test-interop lint setup setup-interop schema clean

# $(call set-up,ENVIRONMENT,PYTHON,EXTRA,EXTRA). pyenv hides an interpreter that .python-version does not name.
# The stamp names the checkout that the environment was installed from: a re-used one is pointed at this one.
define set-up
	@if [ ! -x $(1)/bin/python ]; then $(2) -m venv $(1) 2>/dev/null || PYENV_VERSION=$(2:python%=%) $(2) -m venv $(1); fi
	@stamp=$(1)/.mksgn-installed; \
	if [ "$$(cat $$stamp 2>/dev/null)" != "$(CURDIR)" ] || [ pyproject.toml -nt $$stamp ] || [ constraints.txt -nt $$stamp ]; then \
		echo "setting up $(1) (one to two minutes the first time)"; \
		$(1)/bin/python -m pip install -q -c constraints.txt -e '.[$(3),$(4)]' && echo "$(CURDIR)" > $$stamp; \
	fi
endef

setup:
	$(call set-up,$(VENV),$(PYTHON),lava,dev)

setup-interop:
	$(call set-up,$(INTEROP_VENV),$(INTEROP_PYTHON),interop,dev)

demo: setup
	$(BIN)/torchrun --standalone --nproc-per-node 2 -m mksgn.train demo --data synthetic --out $(DEMO)
	$(BIN)/mksgn-export $(DEMO)/model.pt --to nir --quantize 8 --calibration synthetic --verify 20
	$(BIN)/mksgn-bench run $(DEMO)/model.nir --data synthetic --backend lava --precision fixed -o $(DEMO)
	$(BIN)/mksgn-bench check $(DEMO)

# One thread in torch, as the commands set it: the children that tests start share two cores with Lava's Processes.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# All that needs no Lava on a later Python, and our files in SpikingJelly, snnTorch and norse.
test-interop: setup-interop
	MKSGN_INTEROP=1 OMP_NUM_THREADS=1 $(INTEROP_VENV)/bin/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: setup
	$(BIN)/python -m mksgn.bench.record > mksgn/bench/data/run.schema.json
	$(BIN)/python -m mksgn.bench.energy_models > mksgn/bench/data/energy_models.schema.json
	$(BIN)/python -m mksgn.bench.claims > mksgn/bench/data/claims.schema.json

clean:
	rm -rf runs .mypy_cache .ruff_cache .pytest_cache
