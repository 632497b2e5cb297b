# `make demo` and `make test` need nothing but Python 3.11 or newer. They install into .venv and
# .nox once, and work offline from then on.
.DEFAULT_GOAL := test
.PHONY: demo test check clean

PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11,$(shell $(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(python))))

demo: .venv/demo
	.venv/bin/python -m flask_bitmapist.demo

test: .nox/tests/installed
	.venv/bin/nox -R -s tests

check: .venv/nox
	.venv/bin/nox

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo: pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install --quiet --editable '.[demo]'
	@touch $@

.venv/nox: pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install --quiet 'nox>=2024.10'
	@touch $@

.nox/tests/installed: pyproject.toml noxfile.py .venv/nox
	.venv/bin/nox -s tests --install-only
	@touch $@

clean:
	rm -rf .venv .nox docs/_build
