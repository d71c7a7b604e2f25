# One set of recipes for a person and for CI. Needs python3 (3.11 or newer), cargo and make; fetches the rest
# from the public registries into .venv and target/.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock pyproject.toml

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_QUIET := 1

.DEFAULT_GOAL := help
.PHONY: help demo v3 test lint bench bench-check bench-store exhaustive faults format real distill parts campaign rehearsal wheels wheels-twice docs ranks wheels-test guided autotune nonces ablate clean

help:  ## Show these recipes
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.built  ## Build, run the whole pipeline on generated volumes, leave demo/submission.zip and demo/report.html
	$(BIN)/vesu demo --out demo

test: $(VENV)/.built $(VENV)/.dev  ## Build and pass all tests, Rust and Python
	cargo test --profile fast -p vesu-core
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.built $(VENV)/.dev  ## Formatting, clippy, ruff, mypy strict, stubtest: all warnings are errors
	cargo fmt --check
	cargo clippy --profile fast --workspace --all-targets -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest vesu._core --mypy-config-file pyproject.toml

bench: $(VENV)/.built $(VENV)/.bench  ## Benchmarks against the peers, in one run; writes .benchmarks/latest.json and prints the ratios
	mkdir -p .benchmarks
	cargo run -q --release -p vesu-core --example port_limit
	$(BIN)/python -m pytest benches --benchmark-only --benchmark-json=.benchmarks/latest.json -q --benchmark-columns=min,median,rounds
	$(BIN)/python benches/check.py print .benchmarks/latest.json

bench-check: bench  ## Run the benchmarks and fail where a ratio to a peer fell beyond the tolerance
	$(BIN)/python benches/check.py check .benchmarks/latest.json benches/ratios.json

bench-store: bench  ## Run the benchmarks and store their ratios as the new reference
	$(BIN)/python benches/check.py store .benchmarks/latest.json benches/ratios.json

exhaustive: ## Proofs over all inputs: every float32 through every sigmoid, every 3x3x3 mask through the components; minutes
	cargo test --profile fast -p vesu-core every_float32 -- --ignored --nocapture
	cargo test --profile fast -p vesu-core every_mask_of_3x3x3 -- --ignored --nocapture

faults: $(VENV)/.built $(VENV)/.dev  ## The fault campaign: kills, refusing disks, power cuts, damage, mutants, 200 kills of the real command, a run cut at every iteration; half an hour
	$(BIN)/python tests/faults/campaign.py --full --out build/faults.json
	$(BIN)/python tests/kill_run.py --kills 200 --out build/kills.json
	$(BIN)/python tests/cut_run.py --seeds 3 --out build/cuts.json

wheels-test: $(VENV)/.built  ## Install from wheels-offline/ and run where there is no network, on each Python at hand (VESU_PYTHONS); ten minutes
	$(BIN)/python tests/offline/prove_offline.py --wheelhouse wheels-offline --out build/offline.json

real: $(VENV)/.built $(VENV)/.dev  ## The experiment on the research volumes (VESU_DATA or ../shared/data); prints the figures of docs/measured.md
	$(BIN)/python benches/real_input.py --out build/real

distill: $(VENV)/.built $(VENV)/.dev  ## Teachers and student on the research volumes; leaves build/distill/table.md; hours
	$(BIN)/python benches/distill_real.py --out build/distill

rehearsal: $(VENV)/.built  ## 786 small pairs through the whole run, a few of the real size, a run with too little time; leaves build/rehearsal/rehearsal.md; an hour
	$(BIN)/python benches/rehearsal.py --out build/rehearsal

guided: $(VENV)/.built $(VENV)/.dev  ## The guided phase with a real competitor's mask (VESU_DATA): before and after, over seeds; leaves build/guided/guided.json; an hour
	$(BIN)/python benches/guided_real.py --out build/guided

ablate: $(VENV)/.built $(VENV)/.dev  ## What feature groups, ladder steps and teachers are worth on generated scrolls; leaves build/ablate/*/ablation.html; minutes
	$(BIN)/python benches/ablation.py --out build/ablate

parts: $(VENV)/.built  ## One run made by 1, 2 and 4 processes: same final hashes, seconds of each phase; leaves build/parts/parts.json
	$(BIN)/python benches/parts.py --out build/parts

v3: $(VENV)/.built $(VENV)/.dev  ## One run on generated volumes with every V3 phase on; leaves build/v3/run with all its files, and says GO or NO-GO; minutes
	$(BIN)/python examples/v3/on_phantoms.py --out build/v3

campaign: $(VENV)/.built $(VENV)/.dev  ## The example campaigns on generated volumes: NX46 in ten variants, P1 to P3; leaves build/campaign/*/comparison.html; minutes
	$(BIN)/python examples/campaigns/on_phantoms.py --out build/campaign

wheels: $(VENV)/.built $(VENV)/.wheels  ## The offline wheelhouse: vesu's manylinux wheels, by a lock what Kaggle's image lacks, MANIFEST.json; minutes
	$(BIN)/python wheels-offline/build.py

wheels-twice: $(VENV)/.built $(VENV)/.wheels  ## The same, and vesu once more in another folder: fails unless the bytes are the same
	$(BIN)/python wheels-offline/build.py --twice

docs: $(VENV)/.built $(VENV)/.docs  ## Build the documentation's site into build/docs; a warning is an error
	$(BIN)/python -m sphinx -b html -W --keep-going -q -d build/doctrees docs build/docs
	@echo build/docs/index.html

ranks: $(VENV)/.built $(VENV)/.dev  ## Runs and searches in one, two and three processes: the same bits, or it fails; prints seconds and bytes an iteration
	$(BIN)/python tests/ranks_run.py
	$(BIN)/python benches/ranks.py --ranks 1 2 3

autotune: $(VENV)/.built $(VENV)/.dev  ## Auto-tuning: each policy on the search it is for, plain against tuned on held-out volumes; leaves build/autotune/autotune.md; minutes
	$(BIN)/python benches/autotune.py --out build/autotune

nonces: $(VENV)/.built  ## What unlimited golden nonces cost by their number, 256^3: memory, log, timeline, seconds; a minute, 1.5 GB of temporary disk
	$(BIN)/python benches/nonces_memory.py

format:  ## Rewrite the sources in the house style
	cargo fmt
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove everything that these recipes made
	rm -rf $(VENV) target demo build .benchmarks python/vesu/*.so wheels-offline/*.whl wheels-offline/MANIFEST.json

$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vesu needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.built: $(VENV)/.pip $(RUST_SOURCES)
	$(BIN)/python -m pip install -q 'maturin>=1.9,<2'
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop -q --release --extras all
	@touch $@

$(VENV)/.dev: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install -q --group dev
	@touch $@

$(VENV)/.wheels: $(VENV)/.pip wheels-offline/tools.txt
	$(BIN)/python -m pip install -q -r wheels-offline/tools.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.dev pyproject.toml
	$(BIN)/python -m pip install -q --group bench
	@touch $@

$(VENV)/.docs: $(VENV)/.dev pyproject.toml
	$(BIN)/python -m pip install -q --group docs
	@touch $@
