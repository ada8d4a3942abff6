package mirror

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/wire"
)

// session is what a source broker remembers of one connection's fetches
// (KIP-227): which partitions are wanted, and from which offset on. A request
// names only those that changed, and a response those that have something new.
//
// A partition that is left out because its lane is full or in trouble is
// forgotten, not left in: the broker would send its records again each time. It
// costs nothing more. Something has just come of it, so that its offset would
// have to be named anyway; and when it has room, it would have to be named with
// the offset it has come to.
//
// Owned by a feed's goroutine.
type session struct {
	id    int32 // 0: none yet
	epoch int32 // of the next request; 0: it is a full one
	byID  bool  // topics go by id

	names map[string]map[int32]*fetching // who is in
	ids   map[[16]byte]map[int32]*fetching
	count int
	gone  []forgotten // of the next request
}

// forgotten is a partition that the session is to forget.
type forgotten struct {
	topic     string
	id        [16]byte
	partition int32
}

// reset begins anew: the next request is a full one.
func (s *session) reset() {
	for _, parts := range s.names {
		leaveAll(parts)
	}
	for _, parts := range s.ids {
		leaveAll(parts)
	}
	*s = session{names: map[string]map[int32]*fetching{}, ids: map[[16]byte]map[int32]*fetching{}, byID: s.byID, gone: s.gone[:0]}
}

func leaveAll(parts map[int32]*fetching) {
	for _, x := range parts {
		x.in = false
	}
}

// enter takes x in, in the place of whatever stood for the same partition.
func (s *session) enter(x *fetching) {
	if x.in {
		return
	}
	var parts map[int32]*fetching
	if s.byID {
		if parts = s.ids[x.id]; parts == nil {
			parts = map[int32]*fetching{}
			s.ids[x.id] = parts
		}
	} else if parts = s.names[x.topic]; parts == nil {
		parts = map[int32]*fetching{}
		s.names[x.topic] = parts
	}
	if old := parts[x.partition]; old != nil {
		old.in = false
		s.count--
	}
	parts[x.partition] = x
	x.in = true
	s.count++
}

// forget takes x out, and the next request says so.
func (s *session) forget(x *fetching) {
	if !x.in {
		return
	}
	x.in = false
	s.count--
	if s.byID {
		delete(s.ids[x.id], x.partition)
		if len(s.ids[x.id]) == 0 {
			delete(s.ids, x.id)
		}
	} else {
		delete(s.names[x.topic], x.partition)
		if len(s.names[x.topic]) == 0 {
			delete(s.names, x.topic)
		}
	}
	if s.epoch > 0 {
		s.gone = append(s.gone, forgotten{x.topic, x.id, x.partition})
	}
}

// find is who stands for a partition of a response; nil: nobody any more.
func (s *session) find(p *wire.FetchedPartition) *fetching {
	if s.byID {
		return s.ids[p.ID][p.Partition]
	}
	return s.names[string(p.Topic)][p.Partition]
}

// knows says whether a partition that was forgotten has been named again.
func (s *session) knows(g forgotten) bool {
	if s.byID {
		return s.ids[g.id][g.partition] != nil
	}
	return s.names[g.topic][g.partition] != nil
}

// all calls fn with each member; it may forget them.
func (s *session) all(fn func(x *fetching)) {
	for _, parts := range s.names {
		for _, x := range parts {
			fn(x)
		}
	}
	for _, parts := range s.ids {
		for _, x := range parts {
			fn(x)
		}
	}
}

// answered takes in what a response says of the session itself. With ok false
// the next request has to be a full one.
func (s *session) answered(code int16, id int32) (ok bool, err error) {
	switch kerr.TypedErrorForCode(code) {
	case nil:
	case kerr.FetchSessionIDNotFound, kerr.InvalidFetchSessionEpoch, kerr.FetchSessionTopicIDError, kerr.InconsistentTopicID, kerr.UnknownTopicID:
		return false, nil
	default:
		return false, kerr.ErrorForCode(code)
	}
	switch {
	case id == 0: // the broker keeps none: its cache is full, or the version has none
		return false, nil
	case s.epoch == 0:
		s.id, s.epoch = id, 1
	case id != s.id:
		return false, nil
	case s.epoch == 1<<31-1:
		s.epoch = 1
	default:
		s.epoch++
	}
	return true, nil
}
