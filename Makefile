# The one door to the project. Settings are environment variables or arguments: `make bench DURATION=20s CONCURRENCY=128`.

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help share bench observe perf compare budgets sim test lint

help: ## Shows this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Long enough for steady percentiles, short enough to wait for.
bench: export DURATION ?= $(if $(filter on true yes 1,$(FIND_MAX)),5s,30s)
bench: ## Builds, starts LOCAL=3 nodes on loopback, loads them and prints the summary; or loads TARGETS=http://…
	@.ci/need cc gcc
	cargo build --locked --release -p node -p runner
	$(TARGET_DIR)/release/runner $(if $(TARGETS),,--local $(or $(LOCAL),3))

observe: ## The whole stack and a run with a kill: Grafana, Jaeger and Prometheus with Docker; without, what there is (KEEP=1: until Ctrl-C)
	@INSTALL=no .ci/need cc gcc
	@INSTALL=no .ci/need python3 python3
	@python3 observability/observe.py $(OBSERVE)

share: ## Builds, and writes man pages and shell completions to target/share
	@.ci/need cc gcc
	cargo build --locked --release -p node -p runner -p direct-runner
	@set -e; for name in node runner direct-runner; do \
	    $(TARGET_DIR)/release/$$name --man $(TARGET_DIR)/share/man/man1; \
	    for shell in bash fish zsh; do mkdir -p $(TARGET_DIR)/share/$$shell; \
	        $(TARGET_DIR)/release/$$name --completions $$shell >$(TARGET_DIR)/share/$$shell/$$name; done; \
	done
	@echo 'Written to $(TARGET_DIR)/share: man/man1, bash, fish, zsh'

perf: ## Measures the targets as ratios against yardsticks on this machine; writes target/perf.md (PERF="--quick")
	@.ci/need cc gcc
	@.ci/need python3 python3
	cargo build --locked --release -p node -p runner -p direct-runner
	python3 perf/perf.py --binaries $(TARGET_DIR)/release --output $(TARGET_DIR)/perf.md $(PERF)

compare: ## The mesh beside Redis, Redis Cluster and memcached, with one load and a kill; writes docs/RESULTS.md (COMPARE="--rounds 1")
	@.ci/need cc gcc
	@.ci/need python3 python3
	@.ci/need redis-server redis-server
	@.ci/need memcached memcached
	cargo build --locked --release -p node -p runner
	python3 perf/compare.py --binaries $(TARGET_DIR)/release $(COMPARE)

budgets: ## Counts instructions and allocations per operation against perf/budgets.toml (WRITE_BUDGETS=1: accepts them; BUDGETS=set)
	@.ci/need cc gcc
	@.ci/need python3 python3
	@.ci/need valgrind valgrind
	python3 perf/budgets.py $(BUDGETS)

sim: ## Simulates clusters under faults: SEEDS=50000 new seeds (FROM=n, STEP=n), SEED=n alone (SHRINK=1: as small as it still fails), MODEL=1
	@.ci/need cc gcc
	$(if $(SEED),MESH_SEED=$(SEED)) cargo test --locked --workspace $(if $(MODEL),--test model,--test simulator seeds_keep_the_guarantee) -- --nocapture

test: ## Everything that CI checks; ends with the number of passed, failed and skipped checks
	@.ci/need cc gcc
	@.ci/checks

lint: ## Only what needs no tests: format, lints, documentation
	@.ci/need cc gcc
	@.ci/checks lint
