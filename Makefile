# `make run` and `make test` work from a clean clone with python3 (>= 3.11), its venv module and make.
# Everything is installed into .venv; nothing outside this folder is touched.

# The interpreter, when .venv is made: `make PYTHON=python3.13 test`. `make clean` first where there is one already.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: run compiled interpreted test lint types coverage soak bench bench-tls schema docs clean

# config/smtp.yaml listens on loopback only, so that trying it out as root is no risk.
run: $(VENV)/.installed $(wildcard $(VENV)/.compiled)
	$(BIN)/smtpmaild --config config/smtp.yaml $(if $(filter 0,$(shell id -u)),--allow-root)

# The hot rooms as machine code, docs/compiled.md. Needs a C compiler and Python's headers. From then on `make run`
# compiles what changed; `make interpreted` goes back to the sources.
compiled: $(VENV)/.compiled

interpreted:
	rm -f $(VENV)/.compiled *__mypyc.*.so
	find smtpmaild -name '*.so' -delete

test: $(VENV)/.test-installed lint types coverage

lint: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test-installed
	$(BIN)/mypy

# The whole suite, then the two gates: the engine and the seams in full, all at 90 %. Half of what a test does is wait,
# so there are more of them at a time than processors. What runs in a daemon that a test starts is not counted: that
# took a third of the time. From the sources: of compiled rooms it would see nothing.
coverage: $(VENV)/.test-installed interpreted
	$(BIN)/coverage erase
	$(BIN)/pytest --numprocesses=3 --dist=worksteal --cov=smtpmaild --cov-branch --cov-report=
	$(BIN)/coverage report --fail-under=100 --include='smtpmaild/smtp/*,smtpmaild/policy/__init__.py,smtpmaild/sink/__init__.py,smtpmaild/routing/__init__.py,smtpmaild/auth/__init__.py,smtpmaild/envelope.py'
	$(BIN)/coverage report --fail-under=90

soak: $(VENV)/.test-installed
	SMTPMAILD_SOAK=1 $(BIN)/pytest -m soak

bench: $(VENV)/.test-installed
	$(BIN)/python bench/run.py

# What TLS costs: beside the same without it, and handshakes beside sessions that are open.
bench-tls: $(VENV)/.test-installed
	$(BIN)/python bench/tls.py

# What is made from the models: the schema for editors, and the pages of the reference.
schema: docs
	$(BIN)/smtpmaild schema > smtpmaild/config/smtpmaild.schema.json

# docs/configuration.md, docs/commands.md and docs/man, from the models and the commands.
docs: $(VENV)/.installed
	cd docs && ../$(BIN)/python -m generate

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all]'
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[auth,test]'
	touch $@

$(VENV)/.compiled: $(VENV)/.installed compiling.py $(shell find smtpmaild -name '*.py')
	$(BIN)/python -m pip install --quiet --disable-pip-version-check hatchling 'mypy>=1.11' 'setuptools>=65'
	$(BIN)/python compiling.py
	touch $@

clean: interpreted
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* dist var
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
