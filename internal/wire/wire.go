// Package wire is Kafka as bytes: frames, request and response headers,
// record batches read and edited in place, and a pipelined client connection.
//
// Messages themselves are kmsg's; this package adds what a mirror and a broker
// need around them. Its promises:
//
//   - Nothing read from a peer makes it panic, and nothing a peer claims makes
//     it allocate beyond a bound that the caller gave: frames grow as their
//     bytes arrive, and no codec inflates past its limit.
//   - A batch header is edited without reading the payload. The checksum
//     follows by algebra, so the checksum that the producer computed is the one
//     that the next broker verifies.
//   - What is not opened is not copied: a [Batch] is a slice of the buffer it
//     came in, and [ProduceRequest] refers to batches where they stand; [FetchResponse] and
//     [ProduceResponse] are read without a copy or an allocation.
//   - Responses of a [Conn] come in the order of its requests; one that does
//     not ends the connection.
//
// The package knows no topics, no clusters and no retries.
package wire
