# make stream   the main job on the default camera, for SECONDS seconds
# make test     everything that must hold: lint, format, types, tests (TESTS= for some of them, JOBS= at once)
# make coverage the same tests, and which lines they reach, in every process: it slows each of them
# make zoo      the models that ship, from their recipes and the photographs in data/: hours; goes on where it stopped
# Each works alone in a fresh clone and makes its own virtual environment. PYTHON chooses the interpreter.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
SECONDS ?= 10
TESTS ?= tests
JOBS ?= 2
HDR_TEACHER := runs/hdrisp-experiment/large/last.pt
VENV := .venv
BIN := $(VENV)/bin
# What goes into an installation beside Python code, which an editable one reads from here.
SOURCES := pyproject.toml $(wildcard setup.py stream/camera/simcam/*.c stream/camera/simcam/*.h stream/camera/simcam/*.xml)

.PHONY: stream test coverage zoo clean

stream: $(VENV)/.installed
	$(BIN)/isp-stream --camera 0 --seconds $(SECONDS)

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	.ci/run-tests $(JOBS) $(BIN)/python -m pytest $(TESTS)

coverage: $(VENV)/.installed-dev
	$(BIN)/coverage erase
	.ci/run-tests $(JOBS) $(BIN)/coverage run -m pytest $(TESTS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# In this order, because each teaches the next.
zoo: $(VENV)/.installed-dev
	for name in lwisp lwisp-s lwisp-xs; do \
	    $(BIN)/isp-train configs/train/$$name.yaml --resume; \
	    $(BIN)/isp-export runs/$$name/last.pt -o engines/zoo/$$name.onnx --force; \
	done
	$(BIN)/isp-train configs/experiments/hdrisp.yaml --resume
	$(BIN)/isp-train configs/train/lwisp-hdr.yaml --set variables.teacher=$(HDR_TEACHER) --resume
	$(BIN)/isp-export runs/lwisp-hdr/large/last.pt -o engines/zoo/lwisp-hdr.onnx --name lwisp-hdr --force
	$(BIN)/isp-train configs/train/light-paired.yaml --resume
	$(BIN)/isp-export runs/light-paired/last.pt -o engines/zoo/light-paired.onnx --name light-paired --force
	$(BIN)/isp-train configs/train/light-unpaired.yaml --resume
	$(BIN)/isp-export runs/light-unpaired/isp/last.pt -o engines/zoo/light-unpaired.onnx --name light-unpaired --force

clean:
	rm -rf $(VENV) .venv-* build *.egg-info .coverage*

$(VENV)/.installed: $(SOURCES) | $(VENV)/bin/pip
	$(BIN)/python -m pip install --quiet -e .
	touch $@

$(VENV)/.installed-dev: $(SOURCES) | $(VENV)/bin/pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/bin/pip:
	"$$(.ci/find-python $(PYTHON) 3.11 3.12 3.10 3.13)" -m venv $(VENV)
