#!/bin/sh
# Puts golangci-lint into the cache and prints the path of its binary. It is
# built with the Go that is here, so that it understands this Go's code.
set -eu
. "$(dirname "$0")/cache.sh"

version=2.15.0
go=$(go env GOVERSION)
binary=$cache/golangci-lint-$version-$go/golangci-lint

if [ ! -x "$binary" ]; then
	[ "${1:-}" != --have ] || stop "golangci-lint $version is not in the cache: run make lint"
	work=$(scratch golangci-lint)
	trap 'rm -rf "$work"' EXIT
	echo "building golangci-lint $version, once: a minute or two" >&2
	GOBIN="$work/bin" GOFLAGS= go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$version" >&2
	place "$work/bin" "$(dirname "$binary")"
fi
echo "$binary"
