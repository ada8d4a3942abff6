// Package mirror is the engine: it carries the topics of one cluster into
// another and answers how far it is.
//
// What it owns: flows and their discovery, the placement of partitions on
// instances, the pump (fetch, edit, append), positions, and keeping target
// topics in step with their sources. What it does not know: embedded brokers
// (a cluster is an address), Consul (it declares [Live]), HTTP and the command
// line.
//
// The promises, and what each rests on:
//
//   - Every source record stands in the target once and in source order. A
//     partition's position is never stored: it is read off the target log,
//     where each batch bears the producer id, epoch and sequence this package
//     gave it, and the ledger (package checkpoint), written ahead, says which
//     source offset each sequence carries. A crash between any two steps
//     therefore finds either the batch in the log or not, and never a position
//     that disagrees with the log.
//   - One partition's trouble is one partition's. It stops, says why, and
//     tries again; its queue gives its memory back meanwhile.
//   - Nothing is skipped silently. What is dropped (control batches, aborted
//     transactions) is counted by reason; a gap that the protocol reports
//     (retention overtook the position, the source was truncated or created
//     anew) stops the partition with a text that says what to do.
//   - Nothing is sent after the membership of this instance can no longer be
//     proved: the appender asks the lease before each request.
//
// Ownership of goroutines: [Engine.Run] starts all and joins all. A *life* is
// one membership; it owns the flows; a flow owns its fetchers (one per source
// broker), appenders (one per target broker) and tenures (one per owned
// partition); a tenure owns its lane, the queue between fetcher and appender.
//
// Lock order: flow.counting => flow.mu, tenure.mu, totals.mu; appender.mu or
// fetcher.mu => lane.mu => slab.mu => budget.mu. No lock is held over I/O, a
// channel operation that could block, or a callback.
package mirror
