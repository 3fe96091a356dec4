# Everything a person types. Needs only Python 3.11 or newer, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9

.PHONY: setup demo test
setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Swarmesh needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@env -u VIRTUAL_ENV $(BIN)/uv sync --locked --inexact --quiet --system-certs --python $(BIN)/python
	@touch $@

# The main job: a swarm of two rustbees on this machine answers a prompt.
demo: setup
	@$(BIN)/swarmesh demo

# Everything CI runs. Each part can be run alone. Those that only compute run side by side; the others time real things.
test: lint types imports tidy
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target simulation unit contract property
	@$(MAKE) --no-print-directory integration e2e

.PHONY: lint types imports tidy unit property contract simulation integration e2e
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports --no-cache

tidy unit property contract simulation integration e2e: setup
	$(BIN)/python -m pytest tests/$@ -q $(PYTEST_ARGS)

# Long runs, each a target of its own; their last results stand in docs/.
.PHONY: sim sim-seeds sim-scaling bench-relay bench-core bench-store bench-reliability bench-tunnel bench-hosts bench-routing bench-engines-routing
sim: setup
	$(BIN)/python -m swarmesh.sim --workers 1000 --events 100000 --seed 1 --check

# 1,000 seeds of each setting: crashes, partitions, pauses, full disks, queens that die.
sim-seeds: setup
	for setting in small batch chaos scaled; do $(BIN)/python -m swarmesh.sim --setting $$setting --seeds 1-1000 --check --processes 2 || exit 1; done

# The controller of Swarmscale under every trace, 1,000 seeds.
sim-scaling: setup
	$(BIN)/python -m swarmesh.sim.scaling --seeds 1000 --processes 2 --progress --write-docs docs/simulation.md

# Everything that can be broken in a real swarm, broken often.
bench-reliability: setup
	$(BIN)/python -m bench.reliability --write-docs

bench-relay: setup
	$(BIN)/python -m bench.relay --write-docs

bench-tunnel: setup
	$(BIN)/python -m bench.tunnel --write-docs

# Machines made of namespaces (needs root): 50 rustbees up and down, cuts, queens that die, copies, installs.
bench-hosts: setup
	$(BIN)/python -m bench.hosts --write-docs

# Routers side by side on virtual time: six workloads, equal and unequal workers, three seeds.
bench-routing: setup
	$(BIN)/python -m bench.routing --processes 2 --write-docs

# The same question to three real engines, one of them slowed to a quarter (needs root and Linux, for control groups).
bench-engines-routing: setup
	$(BIN)/python -m bench.engines_routing --write-docs

bench-core: setup
	$(BIN)/python -m bench.core

bench-store: setup
	$(BIN)/python -m bench.store --write-docs

.PHONY: format lock train-demo clean
# After every change of uv.lock: what is installed on other hosts.
lock: setup
	$(BIN)/python scripts/lock_requirements.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Trains the demo modelcell anew, in an environment of its own (PyTorch is large).
train-demo:
	test -x .venv-train/bin/python || $(PYTHON) -m venv .venv-train
	.venv-train/bin/python -m pip install --quiet torch==2.13.0 'numpy>=2' 'gguf>=0.17'
	OMP_WAIT_POLICY=PASSIVE .venv-train/bin/python scripts/train_demo_model.py

clean:
	rm -rf $(VENV) .venv-train .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
