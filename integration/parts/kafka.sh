#!/bin/sh
# Puts Apache Kafka's jars into the cache and prints the directory they are in.
set -eu
. "$(dirname "$0")/cache.sh"

version=4.1.1
libs=$cache/kafka-$version/libs

if [ ! -d "$libs" ]; then
	[ "${1:-}" != --have ] || stop "Apache Kafka $version is not in the cache: run make deps"
	need java default-jdk-headless
	need mvn maven
	work=$(scratch kafka)
	trap 'rm -rf "$work"' EXIT
	cp "$here/pom.xml" "$work/pom.xml"
	(cd "$work" && mvn -q -B -Dkafka.version=$version dependency:copy-dependencies -DoutputDirectory="$work/libs" >&2)
	[ -n "$(ls "$work/libs"/kafka_2.13-$version.jar 2>/dev/null)" ] || stop "Maven brought no Kafka $version"
	mkdir "$work/kafka" && mv "$work/libs" "$work/kafka/libs"
	place "$work/kafka" "$cache/kafka-$version"
fi
echo "$libs"
