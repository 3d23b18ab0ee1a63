# Everything sets itself up: the first target that needs the virtual environment makes it.
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test check papers bench eval-env docs browser figures clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check torch==2.13.0
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,dev,browser,docs]'
	touch $@

demo: $(STAMP)  ## survey, align and audit the embedded model, and leave demo-out/report.html
	$(VENV)/bin/aligntax demo --out demo-out

test: $(STAMP)  ## all tests (at most 12 minutes)
	$(VENV)/bin/aligntax models fetch smollm2-135m-instruct
	$(PY) -m pytest -q

check: $(STAMP)  ## lint, types, who may import whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

papers: $(STAMP)  ## PAPERS.md from docstring tags and docs/papers.yaml
	$(PY) tools/papers.py

docs: $(STAMP)  ## the site in build/docs; a warning is an error, nothing is fetched
	$(PY) -m sphinx -W --keep-going -q -b html docs build/docs

browser: $(STAMP)  ## open reports and the built site in headless Chromium (CHROMIUM names the binary)
	$(PY) -m pytest -q -o addopts= tests/browser

SURVEY ?= out/survey
AUDIT ?= out/audit
figures: $(STAMP)  ## the site's figures anew, from the reports of a survey and an audit
	SURVEY=$(SURVEY) AUDIT=$(AUDIT) $(PY) -m pytest -q -o addopts= tests/browser/test_figures.py

EVAL := build/eval-venv
eval-env:  ## lm-eval and inspect in an environment of their own, for the tests that run them
	test -x $(EVAL)/bin/python || python3 -m venv $(EVAL)
	$(EVAL)/bin/python -m pip install -q --disable-pip-version-check torch==2.13.0
	$(EVAL)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[eval]'

BENCH := build/bench-venv
KEEP ?= 0
.PHONY: bench-env bench-guard
bench-env:  ## an environment of its own: the peers of the benchmarks need older libraries
	test -x $(BENCH)/bin/python || python3 -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install -q --disable-pip-version-check torch==2.13.0
	$(BENCH)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench,train]'
	$(BENCH)/bin/python -m pip install -q --disable-pip-version-check --no-deps steering-vectors==0.12.2
	$(BENCH)/bin/aligntax models fetch smollm2-135m-instruct

bench: bench-env  ## all benchmarks: benchmarks/results.json and the README's table (KEEP=24 keeps valid parts of the last 24 hours)
	$(BENCH)/bin/python benchmarks/run_all.py --keep $(KEEP)

bench-guard: bench-env  ## all benchmarks again; fails if a ratio is over 20% worse than the committed one
	$(BENCH)/bin/python benchmarks/run_all.py --keep $(KEEP) --guard

clean:
	rm -rf $(VENV) build demo-out out
