package checkpoint

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/wire"
)

// Provenance says that a producer id of the cluster that it stands on is a flow's,
// so that what bears it was mirrored there and is not a record of that cluster's
// own. It is acknowledged before the first batch that bears the id is sent, and
// kept for as long as a batch of it can be in a log: for ever, as Kafka keeps a
// producer's batches through compaction.
type Provenance struct {
	Flow       string
	ProducerID int64
	Source     string // id of the cluster that the flow reads; "" where it has none, or it is not known
	Target     string // the same of the cluster that it writes to
	KeepsNames bool   // the flow has identity naming
	TimeMillis int64
}

// provenanceKeepsNames is a flag of a provenance.
const provenanceKeepsNames = 1

// MapPartition returns the partition of MapTopic that holds what is kept by the
// name of p's flow.
func (p Provenance) MapPartition() int32 { return Key{Flow: p.Flow}.MapPartition() }

// EncodeProvenance returns the record that keeps p.
//
//	key    | 7 | flow | producer id |
//	value  | 1 | time, signed varint | source cluster | target cluster | flags: 1 keeps names |
func EncodeProvenance(p Provenance) wire.Record {
	key := appendString([]byte{kindProvenance}, p.Flow)
	key = binary.AppendUvarint(key, uint64(p.ProducerID))
	value := binary.AppendVarint([]byte{1}, p.TimeMillis)
	value = appendString(value, p.Source)
	value = appendString(value, p.Target)
	flags := byte(0)
	if p.KeepsNames {
		flags |= provenanceKeepsNames
	}
	return wire.Record{Timestamp: p.TimeMillis, Key: key, Value: append(value, flags)}
}

func decodeProvenance(key, value *reader) any {
	p := Provenance{Flow: key.string(), ProducerID: key.int64()}
	if value != nil {
		p.TimeMillis = value.varint()
		p.Source, p.Target = value.string(), value.string()
		p.KeepsNames = value.byte()&provenanceKeepsNames != 0
	}
	return p
}

// provenanceOf is what a record of MapTopic says about a producer id. Before there
// were provenances, anchors, writers and owners said whose it is; a deleted anchor
// still does. Anything else says nothing, nor does what cannot be read.
func provenanceOf(rec wire.Record) (Provenance, bool) {
	if len(rec.Key) == 0 {
		return Provenance{}, false
	}
	switch rec.Key[0] {
	case kindAnchor: // its key will do: there may be many steps
		key := &reader{buf: rec.Key[1:]}
		p := Provenance{Flow: key.key().Flow, ProducerID: key.int64()}
		return p, key.bad == ""
	case kindWriter, kindOwner, kindProvenance:
	default:
		return Provenance{}, false
	}
	what, err := Decode(rec)
	if err != nil {
		return Provenance{}, false
	}
	switch what := what.(type) {
	case Writer:
		return Provenance{Flow: what.Flow, ProducerID: what.ProducerID}, true
	case Owner:
		return Provenance{Flow: what.Flow, ProducerID: what.ProducerID}, true
	case Provenance:
		return what, true
	}
	return Provenance{}, false
}

// Provenances are the producer ids of one cluster that are known to be flows'.
// Not for concurrent use.
type Provenances struct {
	from  Reader
	next  [MapPartitions]int64 // where to go on reading; 0: not begun
	known map[int64]Provenance
	into  map[mirroredInto]struct{}
	texts map[string]string // names and cluster ids, each once in memory
}

// mirroredInto is a topic of the cluster that a flow mirrors into.
type mirroredInto struct {
	flow, topic string
	id          [16]byte
}

// NewProvenances knows nothing until Update. from is the cluster that the ids
// belong to.
func NewProvenances(from Reader) *Provenances {
	return &Provenances{from: from, known: map[int64]Provenance{}, into: map[mirroredInto]struct{}{}, texts: map[string]string{}}
}

// Update reads MapTopic, from where it was left, up to the high watermarks that it
// has when Update begins. A producer id that was seen in the cluster before and is
// not known then is none of a flow's.
func (p *Provenances) Update(ctx context.Context) error {
	for partition := range int32(MapPartitions) {
		if err := p.update(ctx, partition); err != nil {
			return fmt.Errorf("read whose producer ids are whose: %s/%d: %w", MapTopic, partition, err)
		}
	}
	return nil
}

const latest = -1 // ListOffsets: the high watermark

func (p *Provenances) update(ctx context.Context, partition int32) error {
	end, err := p.from.ListOffset(ctx, MapTopic, partition, latest)
	if err != nil {
		return err
	}
	at := p.next[partition]
	if at == 0 || at > end { // at first, or the topic was made anew
		if at, err = p.from.ListOffset(ctx, MapTopic, partition, earliest); err != nil {
			return err
		}
	}
	for at < end {
		next, err := p.from.Read(ctx, MapTopic, partition, at, func(rec wire.Record) error {
			p.add(rec)
			return nil
		})
		if errors.Is(err, kerr.OffsetOutOfRange) { // cut off meanwhile: begin again
			p.next[partition] = 0
		}
		if err != nil {
			return err
		}
		if at = max(at, next); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	p.next[partition] = at
	return nil
}

func (p *Provenances) add(rec wire.Record) {
	if len(rec.Key) > 0 && rec.Key[0] == kindPair {
		if what, err := Decode(rec); err == nil {
			if pair, ok := what.(TopicPair); ok {
				p.into[mirroredInto{p.text(pair.Flow), p.text(pair.TargetTopic), pair.TargetID}] = struct{}{}
			}
		}
		return
	}
	said, ok := provenanceOf(rec)
	if !ok {
		return
	}
	if before, known := p.known[said.ProducerID]; known && before.TimeMillis > 0 && rec.Key[0] != kindProvenance {
		return // what says more stays
	}
	said.Flow, said.Source, said.Target = p.text(said.Flow), p.text(said.Source), p.text(said.Target)
	p.known[said.ProducerID] = said
}

func (p *Provenances) text(s string) string {
	if own, ok := p.texts[s]; ok {
		return own
	}
	p.texts[s] = s
	return s
}

// Of returns what is known of a producer id.
func (p *Provenances) Of(producerID int64) (Provenance, bool) {
	known, ok := p.known[producerID]
	return known, ok
}

// All is what is known of every producer id, in no order.
func (p *Provenances) All() iter.Seq[Provenance] { return maps.Values(p.known) }
