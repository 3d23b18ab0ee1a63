# Everything sets itself up: the first target that needs the virtual environment makes it.
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test check bench browser clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check torch==2.13.0
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,dev,browser]'
	touch $@

demo: $(STAMP)  ## survey the embedded model and leave demo-out/report.html
	$(VENV)/bin/aligntax survey smollm2-135m-instruct --size demo --out demo-out

test: $(STAMP)  ## all tests (at most 12 minutes)
	$(VENV)/bin/aligntax models fetch smollm2-135m-instruct
	$(PY) -m pytest -q

check: $(STAMP)  ## lint, types, who may import whom
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

browser: $(STAMP)  ## open a report in headless Chromium (CHROMIUM names the binary)
	$(PY) -m pytest -q -o addopts= tests/browser

bench: $(STAMP)  ## ratios measured on this machine
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(PY) benchmarks/geometry.py --json benchmarks/geometry.json
	$(PY) benchmarks/survey.py --json benchmarks/survey.json

clean:
	rm -rf $(VENV) build demo-out out
