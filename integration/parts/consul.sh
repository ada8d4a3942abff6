#!/bin/sh
# Puts a Consul server into the cache and prints the path of its binary. It is
# built from source, from the nested module in ../consul that pins its version;
# that takes some minutes, once.
set -eu
. "$(dirname "$0")/cache.sh"

module=$here/../consul
version=$(sed -n 's|^\(require \)\{0,1\}[[:space:]]*github.com/hashicorp/consul v\([^ ]*\).*|\2|p' "$module/go.mod" | head -n 1)
[ -n "$version" ] || stop "no version of github.com/hashicorp/consul in $module/go.mod"
binary=$cache/consul-$version/consul

if [ ! -x "$binary" ]; then
	[ "${1:-}" != --have ] || stop "Consul $version is not in the cache: run make deps"
	need go golang
	work=$(scratch consul)
	trap 'rm -rf "$work"' EXIT
	mkdir "$work/consul"
	echo "building Consul $version, once: some minutes" >&2
	(cd "$module" && go build -trimpath -ldflags='-s -w' -o "$work/consul/consul" github.com/hashicorp/consul >&2)
	place "$work/consul" "$cache/consul-$version"
fi
echo "$binary"
