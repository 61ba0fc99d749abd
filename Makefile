# Start with `make run` and `make test`; `make help` lists all targets. `.ci/run` runs `make test`.

CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto
# Many tests wait for a collector's time limit: at least four run at once, on two cores as well.
export RUST_TEST_THREADS ?= $(shell n=$$(nproc); echo $$((n > 4 ? n : 4)))

.DEFAULT_GOAL := help
.PHONY: help deps build dist run demo test test-fast test-integration test-performance lint unit loom sanitize instructions fuzz fuzz-api \
	fuzz-canary delivery-canary test-incidents test-soak test-e2e test-chart test-mcp test-notify test-page package test-package image deny bench doc \
	clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

deps: ## install what the build needs in addition to Rust: clang, libbpf's headers, a linker
	@scripts/deps.sh

build: deps ## build the release binaries: tapio, and the static CNI plugin tapio-cni
	$(CARGO) build --release --locked --bin tapio
	$(CARGO) rustc --release --locked --bin tapio-cni -- -C target-feature=+crt-static -C strip=symbols

# The linker is Rust's own: it and musl's objects come with the toolchain. Relocations that only add
# the program's base take a bit instead of 24 bytes.
STATIC_TARGET := $(shell uname -m)-unknown-linux-musl
STATIC_FLAGS := -C linker=rust-lld -C linker-flavor=ld.lld -C link-args="-z pack-relative-relocs"

dist: ## build the programs for packages: static, smaller, which takes longer
	@scripts/deps.sh static
	$(CARGO) rustc --profile dist --locked --target $(STATIC_TARGET) --bin tapio -- $(STATIC_FLAGS)
	$(CARGO) rustc --profile dist --locked --target $(STATIC_TARGET) --bin tapio-cni -- $(STATIC_FLAGS) -C strip=symbols

run: build ## run the agent with an embedded server on this machine's real events
	@scripts/as-root.sh target/release/tapio run --standalone

demo: build ## cause real, harmless faults and print their stories
	@scripts/as-root.sh target/release/tapio demo

test: ## run every layer: lints, unit, property, integration and kernel tests, loom, sanitizers
	@scripts/test.sh

test-fast: ## run unit and integration tests only, for the edit-build-test loop
	$(CARGO) test --locked --workspace --lib --tests

test-integration: deps ## run collector → dataflow → server on the real parts of this machine: kernel, systemd, CNI, containerd
	@scripts/test-deps.sh
	$(CARGO) test --locked --no-fail-fast --test agent --test cni --test collectors --test container --test delivery \
		--test demo --test isolation --test kernel --test receiver --test systemd

test-performance: build ## run the benchmarks and print their reports; nothing is asserted on time
	@scripts/performance.sh

lint: ## check formatting, clippy, duplicate dependencies
	$(CARGO) fmt --all --check
	$(CARGO) fmt --check --manifest-path tests/fuzz/Cargo.toml
	$(CARGO) clippy --locked --workspace --all-targets --quiet -- -D warnings
	@scripts/deny.sh

unit: ## run unit, property, integration and kernel tests
	$(CARGO) test --locked --workspace --all-targets --no-fail-fast --quiet
	$(CARGO) test --locked --workspace --doc --quiet

loom: ## check the wake protocol under every interleaving
	@scripts/loom.sh

sanitize: ## run the tests of tapio-core under ThreadSanitizer and AddressSanitizer
	@scripts/sanitize.sh

instructions: ## count the instructions of each stage and compare them with the baseline
	@perf/instructions.sh

fuzz: ## fuzz all parsers, FUZZ_SECONDS (60) for each target
	@scripts/fuzz.sh

fuzz-api: deps ## fuzz the HTTP API by its description with schemathesis, FUZZ_EXAMPLES (50) for each operation
	@scripts/api-fuzz.sh

test-mcp: deps ## test `tapio mcp` and /mcp with the client library of the Model Context Protocol
	@scripts/test-mcp.sh

delivery-canary: ## verify that the simulation of delivery finds planted defects
	@scripts/delivery-canary.sh

fuzz-canary: ## verify that the fuzz targets find planted bugs
	@scripts/fuzz.sh canary

test-incidents: build ## run real faults in a shop of twelve services and score their stories: 3 h (INCIDENTS=--smoke: 3 min)
	@scripts/incidents.sh $(INCIDENTS)

test-soak: build ## run half an hour of load: no event lost, memory constant (SOAK_SECONDS, SOAK_RATE)
	@scripts/soak.sh

test-e2e: deps ## test the collectors against a real API server and a real node, which are built first
	@scripts/e2e.sh

package: $(if $(TAPIO_BINARY),,dist) ## pack deb, rpm, tar.gz, SBOM and checksums in target/package
	@scripts/package.sh

image: $(if $(TAPIO_BINARY),,dist) ## build an OCI image of the agent in target/package/image and image.tar, without a daemon
	@scripts/package.sh image

test-package: package image ## install, upgrade, run and purge the packages in a bare Debian, as root
	@scripts/package-test.sh

test-page: ## test the page in Chromium, which is installed where it is missing
	@scripts/test-page.sh

test-chart: ## test the Helm chart, the Kustomize base and the alerts: rendered, checked, applied to a real API server
	@scripts/test-chart.sh

test-notify: ## test notifications against a real Alertmanager, dashboards and alerts against a real Prometheus
	@scripts/test-notify.sh

deny: ## check licences, duplicates, advisories and sources of the dependencies
	@scripts/deny.sh install

bench: ## measure the cost of an event in ring, names, JSON, rules
	$(CARGO) bench --locked

doc: ## build the API documentation in target/doc
	$(CARGO) doc --locked --no-deps --document-private-items

clean: ## remove build results
	$(CARGO) clean
