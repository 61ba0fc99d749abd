# The two commands a newcomer needs are `make run` and `make test`.
# `make help` lists the others. `.ci/run` is `make test`.

CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.DEFAULT_GOAL := help
.PHONY: help deps build run demo test test-fast test-integration test-performance lint unit loom sanitize fuzz \
	fuzz-canary test-soak test-e2e deny bench doc clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

deps: ## install what the build needs beside Rust: clang, libbpf's headers, a linker
	@scripts/deps.sh

build: deps ## build the release binaries: tapio, and the static CNI plugin tapio-cni
	$(CARGO) build --release --locked --bin tapio
	$(CARGO) rustc --release --locked --bin tapio-cni -- -C target-feature=+crt-static -C strip=symbols

run: build ## run the agent with its embedded server on this machine's real events
	@scripts/as-root.sh target/release/tapio run --standalone

demo: build ## cause real, harmless faults and show their stories
	@scripts/as-root.sh target/release/tapio demo

test: ## everything: lints, unit, property, integration and kernel tests, loom, sanitizers
	@scripts/test.sh

test-fast: ## the developer's loop: unit and integration tests, nothing rebuilt for tools
	$(CARGO) test --locked --workspace --lib --tests

test-integration: deps ## collector → dataflow → server on the real parts of this machine: kernel, systemd, CNI, containerd
	@scripts/test-deps.sh
	$(CARGO) test --locked --no-fail-fast --test agent --test cni --test collectors --test container --test delivery \
		--test demo --test isolation --test kernel --test receiver --test systemd

test-performance: build ## the benchmarks, with their reports printed; nothing is asserted on time
	@scripts/performance.sh

lint: ## formatting, clippy, duplicate dependencies
	$(CARGO) fmt --all --check
	$(CARGO) fmt --check --manifest-path tests/fuzz/Cargo.toml
	$(CARGO) clippy --locked --workspace --all-targets --quiet -- -D warnings
	@scripts/deny.sh

unit: ## unit, property, integration and kernel tests
	$(CARGO) test --locked --workspace --all-targets --no-fail-fast --quiet
	$(CARGO) test --locked --workspace --doc --quiet

loom: ## the wake protocol under every interleaving
	@scripts/loom.sh

sanitize: ## the ring under ThreadSanitizer and AddressSanitizer
	@scripts/sanitize.sh

fuzz: ## random rule documents, events and batches: FUZZ_SECONDS (60) for each target
	@scripts/fuzz.sh

fuzz-canary: ## whether the fuzz targets find bugs that are planted for them
	@scripts/fuzz.sh canary

test-soak: build ## half an hour of load: nothing is lost, memory doesn't grow (SOAK_SECONDS, SOAK_RATE)
	@scripts/soak.sh

test-e2e: deps ## the collectors against a real API server and a real node, which are built and fetched first
	@scripts/e2e.sh

deny: ## licences, duplicates, advisories and sources of the dependencies
	@scripts/deny.sh install

bench: ## what an event costs in the ring, names, JSON, the rules
	$(CARGO) bench --locked

doc: ## the library's documentation, in target/doc
	$(CARGO) doc --locked --no-deps --document-private-items

clean: ## remove what was built
	$(CARGO) clean
