package checkpoint

// producersOf are the producer ids that flows have had, by flow.
type producersOf map[string]map[int64]struct{}

// writes takes in a record that says whose a producer id is.
func (x *Index) writes(what any) {
	var flow string
	var id int64
	switch what := what.(type) {
	case Anchor:
		flow, id = what.Key.Flow, what.ProducerID
	case Writer:
		flow, id = what.Flow, what.ProducerID
	case Owner:
		flow, id = what.Flow, what.ProducerID
	case Provenance:
		flow, id = what.Flow, what.ProducerID
	default:
		return
	}
	if id < 0 || x.Wrote(flow, id) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.wrote[flow] == nil {
		x.wrote[flow] = map[int64]struct{}{}
	}
	x.wrote[flow][id] = struct{}{}
}

// Wrote reports whether a producer id of the target is known to be, or to have
// been, the flow's. It is written down before the first batch that bears it.
func (x *Index) Wrote(flow string, producerID int64) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	_, ok := x.wrote[flow][producerID]
	return ok
}
