# The verbs of this checkout. They need Python 3.11 or 3.12 and make; `headway doctor` checks the rest.
# Arguments are passed on: make demo ARGS="--report FILE".

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test test-all check bench docs proto lock

ARGS ?=
BIN := .venv/bin
CODE := headway domains products assets orchestration serving streaming scripts tests benchmarks
# The first Python on PATH that has the right version.
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$name && break; done)

help: ## this list
	@echo 'make VERB [ARGS="..."]'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' Makefile | while IFS='|' read -r verb text; do printf '%-12s %s\n' "$$verb" "$$text"; done

setup: ## make the environment in .venv, or bring it up to date
ifeq ($(PYTHON),)
	@echo 'setup: Python 3.11 or 3.12 is not on PATH. Debian: apt-get install python3.11 python3.11-venv' >&2; exit 1
else
	@$(PYTHON) scripts/bootstrap.py
endif

demo: setup ## run the whole loop on real data on this machine
	@$(BIN)/headway demo $(ARGS)

up: setup ## start the stack on this machine
	@$(BIN)/headway up $(ARGS)

down: setup ## stop the stack
	@$(BIN)/headway down $(ARGS)

test: check ## check, then every test but the long ones; minutes by part
	@$(BIN)/python -m pytest -m 'not long' $(ARGS)

test-all: check ## check, then every test
	@$(BIN)/python -m pytest $(ARGS)

check: setup ## format, lint, types, direction of imports, declared dependencies
	@$(BIN)/ruff format --check --quiet $(CODE)
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/mypy --no-error-summary
	@said=$$($(BIN)/lint-imports --no-cache 2>&1) || { echo "$$said"; exit 1; }
	@said=$$($(BIN)/deptry . 2>&1) || { echo "$$said"; exit 1; }
	@echo 'check: format, lint, types, imports and dependencies hold'

bench: setup ## run all benchmarks, then write docs/benchmarks.md; or one: make bench ARGS=P9
ifeq ($(ARGS),)
	@$(BIN)/headway bench all; all=$$?; $(BIN)/headway bench table && exit $$all
else
	@$(BIN)/headway bench $(ARGS)
endif

docs: setup ## check the links of the documents and the commands they show
	@$(BIN)/python scripts/check_docs.py

proto: setup ## write the Python of serving/proto/*.proto again
	@$(BIN)/python scripts/proto.py

lock: setup ## write requirements.lock again (newest versions: make lock ARGS=--upgrade)
	@$(BIN)/uv pip compile pyproject.toml --quiet --extra dev --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command 'make lock' -o requirements.lock $(ARGS)
	@! grep -nE '://|index-url|find-links' requirements.lock || { echo 'lock: it names a host' >&2; exit 1; }
