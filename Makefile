# Two commands for a fresh machine: `make lab` and `make test`. Both need only Python 3.10 or newer with venv.
#
#     PYTHON=python3.12    the interpreter that .venv is made with
#     PIP_ARGS="..."       passed to every `pip install`, for example an extra index that has torch without CUDA
#     PYTHON_OF_FLOORS=python3.10   the interpreter of `make test-floors`: the oldest that you have, up to 3.12
#     LAB_ARGS="..."       passed to JupyterLab, for example "--no-browser --port 8899"
#     N=10000 SEED=0       number of cases of `make fuzz` and the seed of its arguments
#     PORTABLE_ARGS="..."  passed to tests/tools/portable.py, for example "--only default:1"

PYTHON ?= python3
PIP_ARGS ?=
LAB_ARGS ?=
PYTHON_OF_FLOORS ?= $(PYTHON)
PORTABLE_ARGS ?=
N ?= 10000
SEED ?= 0

PY := .venv/bin/python
PIP_INSTALL = $(PY) -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
INSTALLED := .venv/.installed
BENCH_INSTALLED := .venv/.bench-installed
DOCS_INSTALLED := .venv/.docs-installed
# Two, since each holds torch and a few hundred megabytes: more would not be faster on small machines.
TWO_PROCESSES := -q --numprocesses 2
# Whatever asks another machine for something fails: the course and the site need no network.
NO_NETWORK := PYTHONPATH=$(CURDIR)/tests/tools/no_network
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout 300
# Those that take minutes; optim_accuracy.py trains for hours and resumes where it was stopped,
# base_optimizers.py and domain_generalization.py for half an hour.
# coverage.py comes last: its exit status is 1 if a target is missed.
BENCHMARKS := hvp language_model entropy_error bound_alpha optim_step explorers busy lanczos_vectors study_tables study_coverage random_labels coverage
NOTEBOOKS = $(wildcard notebooks/*.ipynb notebooks/solutions/*.ipynb)

.DEFAULT_GOAL := help
.PHONY: help lab test test-fast fuzz test-browser test-portable test-floors test-wheel notebooks student check lint format format-check types docs bench clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: $(INSTALLED) ## open the course in JupyterLab
	$(PY) -m jupyterlab notebooks/00_start_here.ipynb $(LAB_ARGS)

# In the order of the folders: the browser tests, one long module, begin early and the other process does the rest.
test: $(INSTALLED) ## run unit tests and doctests, then every notebook against its stored outputs, in two processes
	$(PY) -m pytest $(TWO_PROCESSES) --dist loadscope --no-loadscope-reorder renyi_lab tests
	CI=1 OMP_NUM_THREADS=1 $(NO_NETWORK) $(PY) -m pytest $(TWO_PROCESSES) --dist loadfile $(NBVAL) notebooks

test-fast: $(INSTALLED) ## unit tests without slow ones, in two processes: about a minute on two free cores
	$(PY) -m pytest $(TWO_PROCESSES) --dist loadscope -m "not slow and not browser" --ignore tests/test_notebooks.py tests

fuzz: $(INSTALLED) ## call everything public with N random arguments (default 10000), print failures and a table
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(PY) -m fuzz $(N) --seed $(SEED)

test-browser: $(INSTALLED) ## drive every notebook in JupyterLab and Chromium; fails where Chromium is missing
	BROWSER_TESTS=required $(PY) -m pytest tests/browser

test-portable: $(INSTALLED) ## run tests and notebooks with each instruction set and with one and two threads
	$(PY) tests/tools/portable.py $(PORTABLE_ARGS)

# Releases of that time warn of their own dependencies' newer ones, so deprecations are no errors here.
test-floors: $(INSTALLED) ## run the fast tests with the lowest releases that pyproject.toml admits, in build/floors
	$(PYTHON_OF_FLOORS) -m venv --clear build/floors
	$(PY) tests/tools/floors.py $$(build/floors/bin/python -c "import sys; print('%d.%d' % sys.version_info[:2])") \
		> build/floors/floors.txt
	build/floors/bin/python -m pip install --disable-pip-version-check $(PIP_ARGS) -r build/floors/floors.txt
	PYTHONPATH=. build/floors/bin/python -m pytest $(TWO_PROCESSES) --dist loadscope -m "not slow and not browser" \
		-W ignore::DeprecationWarning -W ignore::PendingDeprecationWarning -W ignore::FutureWarning \
		--ignore tests/test_notebooks.py renyi_lab tests

test-wheel: $(INSTALLED) ## install the wheel alone in build/wheel; run check, tour, a copy of the course and one notebook
	$(PY) tests/tools/wheel_alone.py $(PIP_ARGS)

notebooks: $(INSTALLED) ## run every notebook again, store its outputs, cleaned, and make pages of its explorers
	$(PY) tests/tools/navigation.py
	CI=1 $(PY) tests/tools/execute_notebooks.py $(NOTEBOOKS)

student: $(INSTALLED) ## write the course without reference solutions to build/student
	rm -rf build/student
	$(PY) -m renyi_lab notebooks --student build/student

check: lint format-check types ## lint, format-check and types

lint: $(INSTALLED) ## run ruff's rules on code and notebooks
	$(PY) -m ruff check .

format: $(INSTALLED) ## format code and notebooks and sort imports
	$(PY) -m ruff check --select I --fix .
	$(PY) -m ruff format .

format-check: $(INSTALLED) ## list what `make format` would change
	$(PY) -m ruff format --check .

types: $(INSTALLED) ## check the package's types
	$(PY) -m mypy

docs: $(DOCS_INSTALLED) ## build the site into build/site and check its links
	$(NO_NETWORK) $(PY) docs/generate.py
	$(NO_NETWORK) $(PY) -m mkdocs build --strict --site-dir build/site

bench: $(BENCH_INSTALLED) ## measure costs and errors again; JSON files in tests/benchmarks/results (minutes each)
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(PY) tests/benchmarks/$$name.py; done

clean: ## remove .venv, caches and builds
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +

# With the stamp files a second run installs nothing. torch is installed first, so that nothing else chooses its build.
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

$(DOCS_INSTALLED): $(INSTALLED)
	$(PIP_INSTALL) -e '.[docs]'
	@touch $@
