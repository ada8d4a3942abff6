#!/bin/sh
# What make lint runs. Every check is made, then the verdict is given.
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0
check() {
	echo "lint: $*" >&2
	"$@" || failed=1
}

formatted() {
	unformatted=$(git ls-files -z '*.go' | xargs -0 gofmt -l)
	[ -z "$unformatted" ] || { echo "not gofmt'ed:" >&2; echo "$unformatted" >&2; return 1; }
}
check formatted
check go vet ./...
check env GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 go vet ./...
check env GOOS=darwin GOARCH=amd64 CGO_ENABLED=0 go vet ./...
check env GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go vet ./...

if linter=$(integration/parts/golangci-lint.sh); then
	check "$linter" run ./...
else
	failed=1
fi
exit $failed
