# `make` alone lists what there is to run. Linux; Debian 12 and Ubuntu find their packages by themselves.
PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WORKSHOP := $(VENV)/.workshop
# Bindings that the TensorRT backend is held to, by name alone: they run nothing without TensorRT.
BINDINGS := $(VENV)/trt-bindings
BINDINGS_VERSIONS := 10.13.3.9 10.16.1.11 11.4.0.106
WORKSHOP_EXTRAS := export frames tensorrt test-export trt-build
EXTRAS ?= ros,sim,bags,dev
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Tests and demo move robots: they get a DDS domain of their own and stay on this machine.
ISOLATED = ROS_DOMAIN_ID=$$(( $$$$ % 90 + 10 )) ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST \
  FASTDDS_DEFAULT_PROFILES_FILE=$(CURDIR)/config/dds/fastdds_large_shm.xml
PYTEST = $(ISOLATED) VLA_TRT_BINDINGS=$(CURDIR)/$(BINDINGS) $(BIN)/python -m pytest
# Most tests need a core and nothing else: two at a time, each with one thread. Then the others.
ALONE := alone or ros or launch or packaging or gpu
define RUN_TESTS
@failed=; \
OMP_NUM_THREADS=1 $(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m '$(1)not ($(ALONE))' \
  || { failed=$$?; [ $$failed = 1 ] || exit $$failed; }; \
$(PYTEST) -m '$(1)($(ALONE))'; \
[ -z "$$failed" ] || { echo 'Of the tests that ran two at a time some failed: see above.'; exit 1; }
endef

.PHONY: help install workshop system-packages demo test test-fast check lint types format docs bench-cpu clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  PYTHON=python3.12 chooses the interpreter that .venv is made with (3.11 to 3.13).'

install: $(INSTALLED)  ## everything that the demo and the tests need, into .venv; quick when done

workshop: $(INSTALLED) $(WORKSHOP)  ## PyTorch, ONNX and TensorRT-RTX too: to export and build engines

demo: $(INSTALLED)  ## the arm does seven tasks as it is told, in simulation; detector=sim draws boxes too
	$(ISOLATED) $(BIN)/vla-trt demo $(if $(detector),detectors:=$(detector))

test: $(INSTALLED) $(WORKSHOP)  ## all tests that run without a GPU: units, DDS, export, packaging
	$(call RUN_TESTS)

test-fast: $(INSTALLED)  ## the tests that take a few seconds at most
	$(call RUN_TESTS,not slow and )

check: lint types test  ## what a change has to pass

lint: $(INSTALLED)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## mypy, strict
	$(BIN)/mypy

format: $(INSTALLED)  ## ruff rewrites what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## do the links between the pages lead somewhere?
	$(BIN)/python -m pytest -q test/packaging/test_docs.py

bench-cpu: $(INSTALLED)  ## figures of the nodes on this processor -> benchmarks/cpu-nodes.json
	$(ISOLATED) $(BIN)/python benchmarks/cpu_nodes.py

clean:  ## what builds, tests and demos leave; .venv stays
	rm -rf build install log dist demo_out *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------------------------

$(INSTALLED): pyproject.toml setup.py CMakeLists.txt package.xml constraints.txt \
              $(wildcard msg/*.msg srv/*.srv interfaces/*/msg/*.msg scripts/*)
	@$(MAKE) --no-print-directory system-packages
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit( \
	  "Python %d.%d will not do: choose one of 3.11 to 3.13 by PYTHON=..." % v)'
	@echo 'Installing into $(VENV): ROS, the simulator, tools, this package. A minute or two.'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --constraint constraints.txt pip setuptools wheel
	@$(BIN)/python -c 'import tomllib; f = open("pyproject.toml", "rb"); \
	  print(*tomllib.load(f)["build-system"]["requires"], sep="\n")' > $(VENV)/build-requires.txt
	@$(PIP) install --quiet --constraint constraints.txt --requirement $(VENV)/build-requires.txt
	@PYTHONWARNINGS=ignore $(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[$(EXTRAS)]'
	@touch $@
	@echo 'Installed. `make demo` shows it; `. $(BIN)/activate` for a shell of your own.'

# What a robot never has. Only packages: the checkout itself is installed already. Little of torch
# and transformers is ever imported, so nothing is compiled ahead.
$(WORKSHOP): pyproject.toml constraints.txt | $(INSTALLED)
	@$(BIN)/python -c 'import sys, tomllib; f = open("pyproject.toml", "rb"); \
	  extras = tomllib.load(f)["project"]["optional-dependencies"]; \
	  print(*(r for e in sys.argv[1:] for r in extras.get(e, [])), sep="\n")' \
	  $(WORKSHOP_EXTRAS) > $(VENV)/workshop-requires.txt
	$(PIP) install --quiet --no-compile --constraint constraints.txt --requirement $(VENV)/workshop-requires.txt
	@for version in $(BINDINGS_VERSIONS); do \
	  $(PIP) download --quiet --no-deps --dest $(BINDINGS) tensorrt-cu13-bindings==$$version \
	    || echo "no tensorrt-cu13-bindings $$version for this Python: its test skips"; done
	@touch $@

# A compiler for the messages, headers and venv for this Python, OSMesa to render without a display.
system-packages:
	@need=; \
	command -v c++ > /dev/null || need="$$need g++"; \
	$(PYTHON) -c 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' \
	  2> /dev/null || need="$$need python3-dev"; \
	$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || need="$$need python3-venv"; \
	/sbin/ldconfig -p | grep -q libOSMesa || need="$$need libosmesa6"; \
	[ -n "$$need" ] || exit 0; \
	command -v apt-get > /dev/null || { \
	  echo "Missing, under the names that Debian has for them:$$need. Install them, then again."; exit 1; }; \
	sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	echo "Installing$$need"; \
	$$sudo apt-get update -qq; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$need
