# The front door. Needs Python 3.11 or later with pip, and make; everything else goes into .venv.
#   make demo    an alert and a printer's mail survive a power cut and reach the inbox
#   make test    all tests, on CPython and on MicroPython
#   make fuzz    random input for sessions and replies of name servers, FUZZ of each (a million)
#   make power   power cuts at each operation of the flash, with CUTS seeds (10), and ALERTS alerts (100,000)
#   make months  a month of a board's life, with MONTHS seeds (10)
#   make bench   measurements, as ratios to a peer measured in the same run
#   make lint    ruff
#   make clean   removes .venv and what was built
# Another Python: make PYTHON=python3.12 demo

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN = .venv/bin
STAMP = .venv/stamp
PIP = $(BIN)/python -m pip --quiet --disable-pip-version-check
JOBS ?= 3

FUZZ ?= 1000000
CUTS ?= 10
ALERTS ?= 100000
MONTHS ?= 10

.PHONY: help demo test fuzz power months bench lint clean

help:
	@sed -n '2,11s/^# \{0,1\}//p' Makefile

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or later was found; name one: make PYTHON=/path/to/python3.11 demo" >&2; exit 2; }
	@echo "make: preparing .venv with $(PYTHON) (once, about half a minute)"
	@rm -f $(STAMP)
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || { rm -rf .venv && $(PYTHON) -m venv --without-pip .venv \
		&& $(PYTHON) -m pip --quiet --python $(BIN)/python install pip; }
	@$(PIP) install --editable '.[test]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/edgepost demo

test: $(STAMP)
	@echo "make: running the tests on CPython and MicroPython"
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup

fuzz: $(STAMP)
	@echo "make: $(FUZZ) random inputs for the sessions of server and client"
	@$(BIN)/python tests/host/test_fuzz.py $(FUZZ)
	@echo "make: $(FUZZ) random replies of name servers"
	@$(BIN)/python tests/host/test_dns_properties.py $(FUZZ)

power: $(STAMP)
	@echo "make: power cuts with $(CUTS) seeds, $(ALERTS) alerts; this takes a while"
	@EDGEPOST_CUTS=$(CUTS) EDGEPOST_ALERTS=$(ALERTS) $(BIN)/python -m pytest -q -rP -n $(JOBS) tests/host/test_power.py

months: $(STAMP)
	@echo "make: a month of a board's life, with $(MONTHS) seeds, most of a minute each"
	@EDGEPOST_MONTHS=$(MONTHS) $(BIN)/python -m pytest -q -rP -n $(JOBS) tests/host/test_month.py

bench: $(STAMP)
	@echo "make: measuring; ratios to a peer in the same run"
	@$(BIN)/python -m bench

lint: $(STAMP)
	@echo "make: ruff"
	@$(BIN)/ruff check .

clean:
	@echo "make: removing .venv and what was built"
	@rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
