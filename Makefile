# make demo | test | test-all | test-part | test-random | test-lava-dl | test-interop | docs | notebooks | dist | benchmark | interop-table | lint. Each
# sets up its environment the first time and re-uses it afterwards. Without PYTHON it is made from the newest Python that is
# there, 3.10 to 3.13.
PYTHON ?=
VENV ?= $(if $(PYTHON),.venv-$(notdir $(PYTHON)),.venv)
BIN := $(VENV)/bin
# lava-dl, an oracle of the tests, needs torch 2.3 and so Python 3.10; SpikingJelly 2.0 needs 3.11: an environment each.
LAVA_DL_VENV ?= .venv-python3.10
INTEROP_PYTHON ?= python3.11
INTEROP_VENV ?= .venv-interop
DEMO := runs/demo

.PHONY: demo test test-all test-part test-random test-lava-dl test-interop coverage benchmark interop-table lint setup setup-demo setup-lava-dl setup-interop setup-docs \
	schema pages notebooks docs dist test-dist clean

setup:
	@scripts/setup.sh $(VENV) lava,report,dev $(PYTHON)

# Neither lava-dl nor onnx nor the tools of the tests.
setup-demo:
	@scripts/setup.sh $(VENV) lava,report $(PYTHON)

setup-lava-dl:
	@scripts/setup.sh $(LAVA_DL_VENV) lava,report,dev python3.10

setup-interop:
	@scripts/setup.sh $(INTEROP_VENV) interop,dev $(INTEROP_PYTHON)

setup-docs:
	@scripts/setup.sh $(VENV) lava,report,dev,docs $(PYTHON)

demo: setup-demo
	$(BIN)/torchrun --standalone --nproc-per-node 2 -m mksgn.train demo --data synthetic --out $(DEMO) --overwrite
	$(BIN)/mksgn-export $(DEMO)/model.pt --to nir --quantize 8 --calibration synthetic --verify 20
	$(BIN)/mksgn-bench run $(DEMO)/model.nir --data synthetic --backend lava --precision fixed -o $(DEMO) --overwrite
	$(BIN)/mksgn-bench check $(DEMO)

# Two workers share the tests. What kills processes or counts what is left of them runs alone afterwards.
# One thread in torch, as the commands set it: the children that tests start share two cores with Lava's Processes.
TIER := --fast
define run-tests
	$(1) -m pytest $(TIER) -m 'not serial' -n 2 --dist worksteal $(2)
	$(1) -m pytest $(TIER) -m serial $(2)
endef

demo test test-all test-part test-random test-lava-dl test-interop coverage: export OMP_NUM_THREADS = 1
# Tests start a hundred processes, which import the package: compiled once, whatever the shell says of bytecode.
test test-all test-part test-random test-lava-dl test-interop coverage: export PYTHONDONTWRITEBYTECODE =
# A test of Lava skips where it is not installed; under these it must not.
test test-all test-part test-random test-lava-dl: export MKSGN_LAVA = 1

# The fast tier: every kind of test, in 5 to 10 minutes on two cores.
test: setup
	$(call run-tests,$(BIN)/python)

# Everything: the slow tests too, and all examples of every property.
test-all: TIER :=
test-all: setup
	$(call run-tests,$(BIN)/python)

# What .ci/run runs: test, and everything of every fourth file. Four commits in a row run what test-all runs.
PART := $(shell git rev-list --count HEAD 2>/dev/null || echo 0)
test-part: TIER := --slow-part $(PART)/4
test-part: setup
	$(call run-tests,$(BIN)/python)

# The properties of test-all on other examples each time. A failure prints the example, which becomes a test.
test-random: TIER :=
test-random: export MKSGN_RANDOM = 1
test-random: setup
	$(BIN)/python -m pytest -m 'not serial' -n 2 --dist worksteal $$(grep -rl "^from hypothesis" tests --include=test_*.py)

# On Python 3.10: Lava as it was released, and what has lava-dl or the old SpikingJelly as its oracle.
LAVA_TESTS := tests/deploy/lava tests/deploy/test_any_program.py tests/deploy/placement/test_chips.py tests/export/lava_dl \
	tests/export/lowering/test_supported_modules.py tests/export/quantization/test_slayer.py \
	tests/train/test_benchmark.py tests/train/test_neurons.py
test-lava-dl: setup-lava-dl
	$(call run-tests,$(LAVA_DL_VENV)/bin/python,$(LAVA_TESTS))

# Without Lava: our files in SpikingJelly, snnTorch and norse, six frameworks' networks here, and the commands. What
# neither depends on a framework nor on Lava runs in test-all alone. TIER= runs everything.
INTEROP_TESTS := tests/export/graph/test_integration.py tests/export/lowering tests/export/verification/test_simulators.py \
	tests/export/test_cli.py $(wildcard tests/deploy/test_*.py) tests/bench/test_any_graph.py tests/bench/test_neurobench.py \
	tests/bench/test_syn_ops_of_frameworks.py tests/bench/test_tonic.py \
	tests/train/test_benchmark.py tests/test_examples.py tests/test_imports.py
test-interop: export MKSGN_INTEROP = 1
test-interop: setup-interop
	$(INTEROP_VENV)/bin/python -m pytest $(TIER) -m 'not serial' -n 2 --dist worksteal $(INTEROP_TESTS)

# The fast tier in this process alone: a report of the lines and branches that it reaches.
coverage: setup
	$(BIN)/python -m pytest $(TIER) --cov=mksgn --cov-branch --cov-report=term:skip-covered --cov-report=html:runs/coverage

# Adds a line of speed ratios to docs/benchmarks.md. The machine has to be idle; 15 minutes.
BENCHMARK := runs/benchmark
benchmark: setup setup-interop
	mkdir -p $(BENCHMARK)
	$(BIN)/python -m mksgn.deploy.benchmark --no-growth --json > $(BENCHMARK)/one-thread.json
	$(BIN)/python -m mksgn.deploy.benchmark --no-growth --threads 2 --json > $(BENCHMARK)/two-threads.json
	$(INTEROP_VENV)/bin/python -m mksgn.train.benchmark --json > $(BENCHMARK)/train.json
	$(BIN)/python scripts/benchmark_table.py docs/benchmarks.md $(BENCHMARK)/*.json

# Measures the lines of docs/interop.md again; with Lava, which test-interop does without.
interop-table:
	@scripts/setup.sh $(INTEROP_VENV)-lava interop,lava,dev $(INTEROP_PYTHON)
	OMP_NUM_THREADS=1 $(INTEROP_VENV)-lava/bin/python -m scripts.interop_table docs/interop.md

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: setup
	$(BIN)/python -m mksgn.deploy.placement.chip_file > mksgn/deploy/data/chips.schema.json
	$(BIN)/python -m mksgn.bench.record > mksgn/bench/data/run.schema.json
	$(BIN)/python -m mksgn.bench.energy_models > mksgn/bench/data/energy_models.schema.json
	$(BIN)/python -m mksgn.bench.timing_models > mksgn/bench/data/timing_models.schema.json
	$(BIN)/python -m mksgn.bench.claims > mksgn/bench/data/claims.schema.json

# The pages that are written from the code, and the picture of a table. Tests compare them with it.
pages: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.commands_page docs/commands.md
	$(BIN)/python -m scripts.imports_picture docs/imports.svg
	$(BIN)/python -m scripts.front_picture docs/results.md docs/front.svg

# The outputs that the notebooks store. Pictures differ with the version of matplotlib, so this is not part of pages.
notebooks: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m scripts.notebooks examples/*.ipynb

# site/, from docs/ and the docstrings. A link or heading that does not exist is an error, but not with --quiet. Nothing of
# mksgn is imported.
docs: setup-docs pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# dist/: the wheel and the source distribution.
dist: setup
	$(BIN)/python -m build --no-isolation

# The wheel in empty environments of all four Pythons, with Lava: 15 minutes and, on Linux, torch's CUDA build on each.
test-dist: dist
	scripts/try_wheel.sh dist/mksgn-*.whl

clean:
	rm -rf runs site dist build .mypy_cache .ruff_cache .pytest_cache
