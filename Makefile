# Two commands for a fresh machine: `make lab` and `make test`. Both need only Python 3.10 or newer with venv.
#
#     PYTHON=python3.12    the interpreter that .venv is made with
#     PIP_ARGS="..."       passed to every `pip install`, for example an extra index that has torch without CUDA
#     LAB_ARGS="..."       passed to JupyterLab, for example "--no-browser --port 8899"

PYTHON ?= python3
PIP_ARGS ?=
LAB_ARGS ?=

PY := .venv/bin/python
PIP_INSTALL = $(PY) -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
INSTALLED := .venv/.installed
BENCH_INSTALLED := .venv/.bench-installed
BENCHMARKS := hvp entropy_error
NOTEBOOKS = $(wildcard notebooks/*.ipynb notebooks/solutions/*.ipynb)

.DEFAULT_GOAL := help
.PHONY: help lab test notebooks lint format format-check types bench clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: $(INSTALLED) ## open the course in JupyterLab
	$(PY) -m jupyterlab notebooks/00_start_here.ipynb $(LAB_ARGS)

test: $(INSTALLED) ## run unit tests and doctests, then every notebook against its stored outputs
	$(PY) -m pytest --doctest-modules renyi_lab tests
	CI=1 $(PY) -m pytest --nbval --nbval-current-env --nbval-cell-timeout 300 notebooks

notebooks: $(INSTALLED) ## run every notebook again and store its outputs, cleaned
	CI=1 $(PY) -m nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.kernel_name=python3 --ExecutePreprocessor.timeout=600 $(NOTEBOOKS)
	$(PY) tests/tools/clean_notebooks.py $(NOTEBOOKS)

lint: $(INSTALLED) ## look for mistakes, notebooks included
	$(PY) -m ruff check .

format: $(INSTALLED) ## bring code and notebooks into the house style
	$(PY) -m ruff check --select I --fix .
	$(PY) -m ruff format .

format-check: $(INSTALLED) ## say what `make format` would change
	$(PY) -m ruff format --check .

types: $(INSTALLED) ## check the package's types
	$(PY) -m mypy

bench: $(BENCH_INSTALLED) ## time products and measure errors; JSON files in build/ (minutes each)
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(PY) tests/benchmarks/$$name.py --out build/$$name.json; done

clean: ## remove .venv, caches and builds
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +

# The stamps are what makes a second run start at once. torch goes first, so that nothing else can choose its build.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit("renyi_lab needs Python 3.10 or newer, but %s is %d.%d; try: make PYTHON=python3.12" % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) -e '.[lab,test,dev]'
	@touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	$(PIP_INSTALL) -e '.[bench]'
	$(PIP_INSTALL) --no-deps pyhessian==0.1
	@touch $@
