package storage_test

import (
	"math"

	"kmirror/broker/storage"
)

// txnEntry is a batch in the log as the reference remembers it: data, or a marker.
type txnEntry struct {
	base          int64
	values        []string // none for a marker
	time          int64
	producer      int64 // -1 for none
	epoch         int16
	sequence      int32
	transactional bool

	marker           bool
	commit           bool
	coordinatorEpoch int32
}

func (e txnEntry) last() int64 { return e.base + max(int64(len(e.values)), 1) - 1 }

// refProducer is Kafka's ProducerStateEntry.
type refProducer struct {
	epoch            int16
	batches          []txnEntry // of this epoch
	coordinatorEpoch int32
	time             int64
	first            int64 // of the open transaction, -1 for none
}

func (p *refProducer) lastSequence() int32 {
	if len(p.batches) == 0 {
		return -1
	}
	b := p.batches[len(p.batches)-1]
	return b.sequence + int32(len(b.values)) - 1
}

type refAborted struct{ producer, first, marker int64 }

// reference is what Kafka's ProducerStateManager would know after a list of
// batches, worked out from their beginning every time.
type reference struct {
	producers map[int64]*refProducer
	ended     []refAborted // every transaction that a marker ended
	aborted   []refAborted // of them those aborted
}

func refer(entries []txnEntry) reference {
	r := reference{producers: map[int64]*refProducer{}}
	for _, e := range entries {
		if e.producer < 0 {
			continue
		}
		p := r.producers[e.producer]
		if p == nil {
			p = &refProducer{epoch: e.epoch, coordinatorEpoch: -1, first: -1}
			r.producers[e.producer] = p
		}
		if p.epoch != e.epoch {
			p.epoch, p.batches = e.epoch, nil
		}
		p.time = e.time
		switch {
		case e.marker:
			p.coordinatorEpoch = e.coordinatorEpoch
			if p.first >= 0 {
				t := refAborted{e.producer, p.first, e.base}
				r.ended = append(r.ended, t)
				if !e.commit {
					r.aborted = append(r.aborted, t)
				}
			}
			p.first = -1
		default:
			if p.batches = append(p.batches, e); len(p.batches) > 5 {
				p.batches = p.batches[1:]
			}
			if e.transactional && p.first < 0 {
				p.first = e.base
			}
		}
	}
	return r
}

// unstable is the first offset of a transaction without a marker below high.
func (r reference) unstable(high int64) int64 {
	first := int64(math.MaxInt64)
	for _, p := range r.producers {
		if p.first >= 0 {
			first = min(first, p.first)
		}
	}
	for _, t := range r.ended {
		if t.marker >= high {
			first = min(first, t.first)
		}
	}
	return first
}

func (r reference) infos() map[int64]storage.ProducerInfo {
	infos := map[int64]storage.ProducerInfo{}
	for id, p := range r.producers {
		infos[id] = storage.ProducerInfo{
			ID: id, Epoch: p.epoch, LastSequence: p.lastSequence(), LastTimestamp: p.time,
			CoordinatorEpoch: p.coordinatorEpoch, TransactionFirst: p.first,
		}
	}
	return infos
}
