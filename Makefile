# make demo and make test need only Python >= 3.10 and make; each installs what it needs into .venv, once.
#   make test ARGS="-m slow -k brain"    arguments for pytest          make test JOBS=0    no parallel workers
#   make setup PYTHON=python3.12         another interpreter
#   make setup PIP_ARGS="..."            more arguments for the installer, such as an index with CPU-only PyTorch
#                                        (on Linux the default one comes with 2-3 GB of CUDA libraries)
PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=
JOBS ?= 2
PY := .venv/bin/python
# Named after the checksum of what was installed: a change of either file installs again, nothing else does.
STAMP := .venv/.installed-$(shell cat requirements.txt pyproject.toml | cksum | cut -d ' ' -f 1)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench clean

help:
	@echo "make demo     pretrain two tiny encoders on generated speech, probe them, write a report (about 5 minutes)"
	@echo "make test     run the default test suite           make check   ruff and mypy"
	@echo "make bench    speed and memory beside SpeechBrain's own BEST-RQ"
	@echo "make setup    only make .venv                      make format  let ruff lay out the code"
	@echo "make clean    remove caches (.venv and results/ stay)"

setup: $(STAMP)

$(STAMP):
	@echo "make: installing requirements.txt into .venv (downloads up to 3 GB: 2 to 10 minutes, only this once)"
	@test -x $(PY) || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
		"make: $(PYTHON) is Python %d.%d and 3.10 or newer is needed: try make PYTHON=python3.11" % sys.version_info[:2])'
	@test -x $(PY) || $(PYTHON) -m venv .venv 2>/dev/null || { rm -rf .venv; uv venv --seed --python $(PYTHON) .venv; } || \
		{ echo "make: $(PYTHON) -m venv failed: install the venv module (Debian: python3-venv) or uv" >&2; exit 1; }
	@if command -v uv >/dev/null; then \
		uv pip install --compile-bytecode --python $(PY) $(PIP_ARGS) -r requirements.txt && \
		uv pip install --compile-bytecode --python $(PY) $(PIP_ARGS) -e '.[dev]'; \
	else \
		$(PY) -m pip install $(PIP_ARGS) -r requirements.txt && \
		$(PY) -m pip install $(PIP_ARGS) -e '.[dev]'; \
	fi
	@rm -f .venv/.installed-*
	@touch $@

demo: $(STAMP)
	@$(PY) tools/demo.py $(ARGS)

test: $(STAMP)
	@echo "make: running the default tests (5 to 6 minutes on 2 cores)"
	@$(PY) -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(STAMP)
	@echo "make: checking style and types (about 1 minute)"
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

format: $(STAMP)
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: $(STAMP)
	@$(PY) tools/bench_best_rq.py $(ARGS)

clean:
	@rm -rf .pytest_cache .mypy_cache .ruff_cache build *.egg-info
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
