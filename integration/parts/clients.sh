#!/bin/sh
# Puts a Python with kafka-python and confluent-kafka (librdkafka) into the
# cache and prints the path of its interpreter.
set -eu
. "$(dirname "$0")/cache.sh"

kafka_python=3.0.12
confluent_kafka=2.16.1
venv=$cache/clients-$kafka_python-$confluent_kafka

if [ ! -x "$venv/bin/python" ]; then
	[ "${1:-}" != --have ] || stop "the Python clients are not in the cache: run make deps"
	need python3 python3-venv
	work=$(scratch clients)
	trap 'rm -rf "$work"' EXIT
	python3 -m venv --copies "$work/venv" >&2 || stop "python3 -m venv does not work here (Debian: apt-get install python3-venv)"
	"$work/venv/bin/python" -m pip install -q --disable-pip-version-check \
		"kafka-python==$kafka_python" "confluent-kafka==$confluent_kafka" >&2
	"$work/venv/bin/python" -c 'import kafka, confluent_kafka' || stop "the Python clients do not load"
	place "$work/venv" "$venv"
fi
echo "$venv/bin/python"
