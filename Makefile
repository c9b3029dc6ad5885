# Every target sets up what it needs: the first one makes .venv from requirements.lock.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo train train-distributed eval predict bench check-device test test-quick coverage \
	test-user test-notebook test-mlflow test-slurm notebook soak lint fix lock clean

VENV := .venv
RUN := $(VENV)/bin/python -m
STAMP := $(VENV)/.installed
ARGS ?=

# Extras of pyproject.toml beside test and lint: make setup EXTRAS=weights,torch
EXTRAS ?=
comma := ,
EXTRA_NAMES := $(sort $(subst $(comma), ,$(EXTRAS)))
EXTRA_STAMP := $(addprefix $(STAMP)+,$(subst $() ,+,$(EXTRA_NAMES)))

# MindSpore has wheels for 3.10 to 3.12. A python3.x found by name may be a shim that does not run.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$p && break; done)

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) $(EXTRA_STAMP)  ## Make .venv; EXTRAS=weights adds ImageNet weights, coco pycocotools, ascend what CANN needs, torch PyTorch

$(STAMP): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "no Python 3.10, 3.11 or 3.12 found: install one, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -c requirements.lock -e '.[test,lint]'
	@touch $@

$(STAMP)+%: $(STAMP)
	@for name in $(subst +, ,$*); do grep -q "^$$name = \[" pyproject.toml \
		|| { echo "EXTRAS=$(EXTRAS): pyproject.toml has no extra $$name"; exit 1; }; done
	$(VENV)/bin/python -m pip install --quiet -c requirements.lock -e '.[$(subst +,$(comma),$*)]'
	@touch $@

DEMO := experiments/demo/runs/$(shell date +%Y-%m-%d_%H-%M-%S-%N)

demo: $(STAMP)  ## Train, evaluate and predict on the embedded dataset, under five minutes
	$(RUN) src.train experiment=demo output_dir=$(DEMO) $(ARGS)
	$(RUN) src.eval ckpt_path=$(DEMO)/checkpoints/best.ckpt
	$(RUN) src.predict ckpt_path=$(DEMO)/checkpoints/best.ckpt limit_samples=6 \
		input='data/shapes/*_train480_*/JPEGImages/val_*' output=$(DEMO)/predictions
	@echo "the run, its scores and pictures: $(DEMO)"

train: $(STAMP)  ## Train; options in ARGS="model=fcn16s dataset=voc2012"
	$(RUN) src.train $(ARGS)

WORKERS ?= 2

train-distributed: $(STAMP)  ## Train on several processes of this machine; WORKERS=2 ARGS="…"
	$(RUN) src.distributed $(WORKERS) train $(ARGS)

eval: $(STAMP)  ## Evaluate the newest completed run; options in ARGS="ckpt_path=…"
	$(RUN) src.eval $(ARGS)

bench: $(STAMP)  ## Measure speed and memory, about ten minutes; options in ARGS="only=train_step"
	$(RUN) src.benchmark $(ARGS)

notebook: $(STAMP)+notebook  ## Open the tutorial as a notebook in Jupyter; ARGS="--no-browser"
	$(RUN) jupyterlab --ServerApp.root_dir=$(CURDIR) examples/tutorial.ipynb $(ARGS)

check-device: $(STAMP)  ## Check a device's operations against NumPy and the CPU; ARGS="device=ascend"
	$(RUN) src.check_device $(ARGS)

test: $(STAMP)  ## All tests, about ten minutes on two cores
	$(RUN) pytest -n 2 --dist worksteal $(ARGS)

test-quick: $(STAMP)  ## The quick ones of them, about two minutes
	$(RUN) pytest -n 2 --dist worksteal -m "not slow" $(ARGS)

MINUTES ?= 20

soak: $(STAMP)  ## Kill runs, sweeps and ranks, fill a disk, resume: nothing may be lost; MINUTES=20
	$(RUN) tests.soak $(MINUTES)

test-user: $(STAMP)  ## Whole commands as an ordinary user, in a clone with a .venv of its own
	$(RUN) pytest tests/ordinary_user.py $(ARGS)

test-notebook: $(STAMP)+notebook  ## Execute the notebooks of examples/, each in a kernel of its own
	$(RUN) pytest -v --durations=0 tests/notebooks.py $(ARGS)

test-mlflow: $(STAMP)  ## Runs logged to an MLflow server, in an environment made for it; MLFLOW=FILE takes one that is there
	$(MAKE) --no-print-directory setup EXTRAS=mlflow
	MLFLOW=$(MLFLOW) $(RUN) pytest -v tests/engine/loggers/mlflow_server.py $(ARGS)

test-slurm: $(STAMP)  ## Sweeps on a SLURM cluster of one node, started for it; wants slurm-wlm and munge
	$(RUN) pytest -v --durations=0 tests/slurm/slurm_sweeps.py $(ARGS)

coverage: $(STAMP)  ## The quick tests, and which lines of src they do not reach
	$(RUN) pytest -n 2 --dist worksteal -m "not slow" --cov src --cov-report term-missing:skip-covered $(ARGS)

lint: $(STAMP)  ## Check style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

fix: $(STAMP)  ## Mend style and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock: $(STAMP)  ## Resolve the pins anew into requirements.lock
	$(VENV)/bin/python -m pip install --quiet uv
	$(VENV)/bin/uv pip compile --quiet --universal --upgrade --python-version 3.10 --no-header \
		--no-annotate --no-emit-index-url --extra test --extra lint --extra ascend --extra weights \
		--extra notebook --extra mlflow pyproject.toml -o requirements.lock
	$(RUN) tests.aarch64_wheels

clean:  ## Remove .venv and caches; runs and data stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find src tests -name __pycache__ -prune -exec rm -rf {} +
