# make help lists what there is to do. Everything that is fetched or built on
# the way is kept by version under KMIRROR_CACHE (default ~/.cache/kmirror).

GO      ?= go
PARTS   := integration/parts
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
# What go test gets besides: make test TEST=-v, make test TEST='-run Failover'.
TEST    ?=

# Rounds of the crash stories (go test alone takes 3), and how long the tests of
# one package may take.
export KMIRROR_ROUNDS ?= 20
TIMEOUT ?= 40m

.PHONY: build run test deps bench bench-mm2 lint fmt help

build: ## build bin/kmirror
	$(GO) build -trimpath -ldflags='-X main.version=$(VERSION)' -o bin/kmirror ./cmd/kmirror

run: ## run the daemon with ./mirror.yaml
	$(GO) run ./cmd/kmirror run

test: deps ## fetch what the tests need, then run all of them under the race detector
	KMIRROR_CONSUL="$$($(PARTS)/consul.sh --have 2>/dev/null)" \
	$(GO) test -race -timeout $(TIMEOUT) $(TEST) $$($(GO) list ./... | grep -v '/integration')
	$(GO) test -run Alloc ./topology ./internal/wire ./mirror # these count without it
	$(GO) test -race -count=1 -timeout $(TIMEOUT) $(TEST) ./integration/...

deps: ## get the real parts that the tests use: Apache Kafka, Consul, Python clients
	@$(PARTS)/all.sh

bench: deps ## measure kmirror, and its broker beside Apache Kafka
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout $(TIMEOUT) -v ./integration/

bench-mm2: ## measure kmirror beside MirrorMaker 2 between two Kafkas: 25 minutes; BENCH_QUICK=1: a few
	@$(PARTS)/kafka.sh >/dev/null
	-@$(PARTS)/consul.sh >/dev/null
	BENCH_MM2=1 $(GO) test -run '^TestBenchMM2$$' -v -count=1 -timeout 60m $(TEST) ./integration/

lint: ## gofmt, go vet (also for darwin and arm64), golangci-lint
	@$(PARTS)/../lint.sh

fmt: ## format the code
	$$($(PARTS)/golangci-lint.sh) fmt ./...

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)
