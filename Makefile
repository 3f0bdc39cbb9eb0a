# The first command on a fresh checkout may be any of these; each sets up what it needs, in .venv.
#
#   make demo    the whole main job on this machine, then Checkpoint; ARGS="--once --json" for one JSON object of the job
#   make test    all tests; ARGS="-k swap" for some
#   make faults  the tests of kills, failing calls and power loss at full size, with a tally; ARGS as for test; hours
#   make check   formatting, lint, types, import rules
#   make fuzz    one reader of foreign bytes, for a minute; ARGS="zip 600" for another one, and for longer
#   make bench   the benchmarks, as root; ARGS="swap" for those whose name says so, ARGS="deploy --rounds 1" with options
#   make clean   removes what these have made
#
# Set-up speaks on standard error only, so that a target's standard output is its own.

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := demo
.PHONY: demo test check fuzz bench clean

PYTHON_BIN := .venv/bin/python
FAULTS := $(addprefix tests/,faults/test_agent_every_call.py faults/test_agent_long_life.py faults/test_agent_model.py \
    faults/test_power_loss_device.py faults/test_power_loss_model.py faults/test_swapper_readers.py \
    faults/test_swapper_every_call.py e2e/test_kill_at_calls.py hosts/test_load.py hosts/test_idle.py \
    hosts/test_unit.py)
ARGS ?=

demo: .venv/.for-run
	@exec $(PYTHON_BIN) -m hotcold demo $(ARGS)

test: .venv/.for-test
	@exec $(PYTHON_BIN) -m pytest -n auto --dist worksteal $(ARGS)

faults: export HOTCOLD_FAULTS = full
faults: export HOTCOLD_FAULTS_TALLY = $(CURDIR)/.cache/faults-tally
faults: .venv/.for-test
	@mkdir -p .cache && rm -f $(HOTCOLD_FAULTS_TALLY)
	@$(PYTHON_BIN) -m pytest -n auto --dist worksteal $(FAULTS) $(ARGS); status=$$?; \
	$(PYTHON_BIN) -m tests.faults.sizes $(HOTCOLD_FAULTS_TALLY); exit $$status

check: .venv/.for-check
	@$(PYTHON_BIN) -m ruff format --check .
	@$(PYTHON_BIN) -m ruff check .
	@$(PYTHON_BIN) -m mypy
	@.venv/bin/lint-imports

fuzz: .venv/.for-fuzz
	@exec env PYTHONPATH=. $(PYTHON_BIN) tests/fuzz/fuzz.py $(or $(ARGS),tar)

bench: .venv/.for-bench
	@set -- $(ARGS); name=; [[ $$# -eq 0 || $$1 == -* ]] || { name=$$1; shift; }; found=; \
	for each in benchmarks/bench_*.py; do \
	    [[ -e $$each && $$each == *"$$name"* ]] || continue; \
	    each=$${each##*/}; found=1; $(PYTHON_BIN) -m benchmarks.$${each%.py} "$$@" || exit 1; \
	done; \
	[[ $$found ]] || { echo "no file benchmarks/bench_*$$name*.py" >&2; exit 1; }

clean:
	@rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each purpose; the script makes or updates .venv and the stamp.
.venv/.for-%: pyproject.toml scripts/setup-venv
	@scripts/setup-venv .venv $* 1>&2
