// Package checkpoint answers where the other side stands: given an offset on
// the source of a flow, the offset on the target that carries the very next
// record, and back again.
//
// What a failover needs is kept on the target cluster, the side that survives it:
//
//   - the ledger, written ahead: which source offset a sequence number of our
//     producer carries ([Anchor], [Ledger], [LedgerWriter]);
//   - the offset map, written behind: which source offsets stand at which
//     target offsets ([Run], [Runs], [Recorder], [Index]); what a crash left
//     out of it is derived again from the target's batch headers ([Complete]);
//   - whose producer ids are whose ([Provenance]), by which flows of a circle
//     know each other's records;
//   - MirrorMaker 2's checkpoints and heartbeats in their wire format
//     ([Checkpoint], [Heartbeat]), for everything built on them, and where asked
//     for its offset syncs ([OffsetSyncer]), on either side.
//
// The first three live in the compacted topic [MapTopic], which [Housekeep] keeps
// small. The promise: a translated offset never skips a record that the group has
// not read. It returns to none that it has, as long as the record is mirrored,
// but for where the map is loose ([Run]) or two sites write one topic ([Routes]):
// there the translation says that it is not exact.
//
// [Syncer] carries the offsets of consumer groups over, and back where that is
// wanted. It never touches a side on which the group has members, nor what
// somebody else committed, and moves a group back only where it went back on the
// other side. [GroupMover] does so once, by an operator's hand, whoever committed.
//
// The package does not know how records travel. Its decisions (Ledger, Runs,
// Complete, Housekeep, and what is done to a group) are pure; what takes a context
// touches a cluster, through small interfaces that *kafka.Cluster fulfils. No lock
// is held during I/O or a callback; no two locks nest.
package checkpoint
