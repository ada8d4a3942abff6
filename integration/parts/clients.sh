#!/bin/sh
# Puts a Python with kafka-python and confluent-kafka (librdkafka) into the
# cache and prints the path of its interpreter.
set -eu
. "$(dirname "$0")/cache.sh"

venv=$cache/clients-$(cksum <"$here/requirements.txt" | cut -d ' ' -f 1)

if [ ! -x "$venv/bin/python" ]; then
	[ "${1:-}" != --have ] || stop "the Python clients are not in the cache: run make deps"
	need python3 python3-venv
	work=$(scratch clients)
	trap 'rm -rf "$work"' EXIT
	python3 -m venv --copies "$work/venv" >&2 || stop "python3 -m venv does not work here (Debian: apt-get install python3-venv)"
	"$work/venv/bin/python" -m pip install -q --disable-pip-version-check -r "$here/requirements.txt" >&2
	"$work/venv/bin/python" -c 'import kafka, confluent_kafka, lz4, snappy, zstandard' || stop "the Python clients do not load"
	place "$work/venv" "$venv"
fi
echo "$venv/bin/python"
