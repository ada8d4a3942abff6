// Package checkpoint answers where the other side stands: given an offset on
// the source of a flow, the offset on the target that carries the very next
// record, and back again.
//
// It keeps three things, all on the target cluster, so that what a failover
// needs is on the side that survives it:
//
//   - the ledger, written ahead: which source offset a sequence number of our
//     producer carries ([Anchor], [Ledger], [LedgerWriter]);
//   - the offset map, written behind: which source offsets stand at which
//     target offsets ([Run], [Runs], [Recorder], [Index]); what a crash left
//     out of it is derived again from the target's batch headers ([Complete]);
//   - MirrorMaker 2's checkpoints and heartbeats in their wire format
//     ([Checkpoint], [Heartbeat]), for everything built on them.
//
// The first two live in the compacted topic [MapTopic]. The promise: a
// translated offset never skips a record that the group has not read, and
// never returns to one that it has, as long as the record is mirrored.
//
// [Syncer] carries the offsets of consumer groups over. It never touches a
// group that has members on the target, nor moves one back unless the group
// went back on the source and the target still stands where we put it.
//
// The package does not know how records travel. Its decisions (Ledger, Runs,
// Complete, and what is done to a group) are pure; only the Run methods and
// LoadPartitions touch a cluster, through small interfaces that
// *kafka.Cluster fulfils. No lock is held during I/O or a callback; no two
// locks nest.
package checkpoint
