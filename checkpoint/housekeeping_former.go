package checkpoint

// Forget decides what goes of a former incarnation of a source topic, whose records
// were mirrored into a target topic that does not exist any more either. Both ids
// are gone for good, as Kafka gives none twice:
//
//   - No group stands in either topic, so that nobody asks the map; translation goes
//     by the newest pair anyway.
//   - No batch is left that the ledger could explain. Were the source topic to come
//     back under its id (the flow reads from a cluster that it was moved away from),
//     the map would be begun anew, for its target is another (see Runs.Reset), and
//     mirroring at the start, with these records or without.
//   - The topic pair stays, and says for how long it has been so.
//   - An anchor of a producer id whose provenance was never written down stays: it may
//     be the last record that says whose the id is. declared knows the others.
//
// Who holds the partition has ended all that wrote for it under whatever incarnation,
// for owners are kept by the topic's name, and is ended himself before another
// writes. A part of the records may be written, from the beginning: the open block
// goes last, so that what is left is found again.
//
// What is not deleted by anybody, though it may never be asked for again:
//
//   - Records of flows that are not in mirror.yaml. They may be another deployment's,
//     which is stopped, or have been taken out by mistake; a flow that comes back
//     without them would mirror everything once more. And nobody holds their
//     partitions: whoever deleted them could not be sure that no one writes.
//   - Records of a source topic that is gone, without one in its place, for the same
//     want of a holder; and the copy may be what is failed over to.
//   - Records of a former incarnation that the same target topic holds too: their
//     batches are still there.
func Forget(k Key, l Loaded, declared map[int64]struct{}) Chores {
	var c Chores
	for _, a := range l.Ledger.all() {
		if _, ok := declared[a.ProducerID]; ok {
			a.Key = k
			c.add(EncodeDeleted(a), &c.Anchors)
		}
	}
	for _, b := range l.Filed.named(k, l.Filed.sorted()) {
		c.add(EncodeDeleted(b), &c.Blocks)
	}
	if l.Open {
		c.add(EncodeDeleted(Block{Key: k, Open: true, Runs: []Run{{}}}), &c.Blocks)
	}
	return c
}

// all returns every anchor, oldest epoch first, by their keys.
func (l *Ledger) all() []Anchor {
	var all []Anchor
	for _, p := range l.byAge() {
		all = l.anchors(all, p, l.producers[p].filed)
	}
	return all
}
