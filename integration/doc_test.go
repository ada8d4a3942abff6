// Package integration tests kmirror as a whole: the built binary, real clients
// and real servers around it.
//
// Each story is a test that starts what it needs in a world of its own (see
// world_test.go): daemons of the kmirror binary, Apache Kafka, Consul, kcat,
// Python clients, Kafka's Java tools. The real parts come from the scripts in
// parts/, which make test runs; go test alone only looks whether they are in
// the cache. A story whose part is missing says SKIP and why, and fails where
// KMIRROR_CI=1 promises that everything is there.
//
// The package knows kmirror from outside only: its command line, mirror.yaml,
// its HTTP addresses, and Kafka's protocol. The layering test is the exception:
// it reads the sources.
//
// Environment:
//
//	KMIRROR_ROUNDS  rounds of the crash stories, default 3
//	KMIRROR_CI      1: a missing part fails instead of skipping
//	KMIRROR_CACHE   where the parts are, default ~/.cache/kmirror
//	KMIRROR_BINARY  a kmirror to test instead of building one
//	KMIRROR_KEEP    a directory that receives pictures and the logs of failed tests
package integration_test
