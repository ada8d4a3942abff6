package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"kmirror/internal/wire"
)

// Loaded is what MapTopic holds about one mirrored partition.
type Loaded struct {
	Ledger *Ledger
	Runs   *Runs
	Filed  *Filed      // the full blocks that stand in the topic
	Pairs  []TopicPair // of its flow and topic, every incarnation, in the order of the topic

	Open   bool    // the open block stands in the topic
	Owners []Owner // that may have written to it; of a key without a topic id

	// Of a key that names the flow alone.
	Writers  []Writer
	Declared map[int64]struct{} // producer ids of which a provenance says whose they are
}

// LoadPartitions reads one partition of MapTopic, once, for several keys whose
// MapPartition it is. It answers for each of them; about a key that was never
// written, with nothing in it. Records that are not ours or not readable are
// passed over. A ledger is only as new as the read: whoever takes a partition
// over reads after the marker that ends its predecessor.
func LoadPartitions(ctx context.Context, target Reader, mapPartition int32, keys []Key) (map[Key]Loaded, error) {
	loaded := make(map[Key]*loading, len(keys))
	for _, k := range keys {
		loaded[k] = &loading{Loaded: Loaded{Ledger: &Ledger{}, Filed: &Filed{}}}
	}
	if err := readAll(ctx, target, mapPartition, func(what any) { apply(what, loaded) }); err != nil {
		return nil, fmt.Errorf("load %s/%d: %w", MapTopic, mapPartition, err)
	}
	result := make(map[Key]Loaded, len(loaded))
	for k, l := range loaded {
		l.part.read(func(r *Runs) { l.Runs = r })
		result[k] = l.Loaded
	}
	return result, nil
}

// loading is what of a partition has been read so far; its Runs are in part.
type loading struct {
	Loaded
	part part
}

// CountOwned reads all of MapTopic and counts the partitions that each
// transactional id is written down for as an owner.
func CountOwned(ctx context.Context, target Reader) (map[string]int, error) {
	owners := map[string]map[Key]struct{}{}
	for p := range int32(MapPartitions) {
		err := readAll(ctx, target, p, func(what any) {
			if o, ok := what.(Owner); ok {
				if owners[o.TransactionalID] == nil {
					owners[o.TransactionalID] = map[Key]struct{}{}
				}
				owners[o.TransactionalID][o.Key] = struct{}{}
			} else if d, ok := what.(Deleted); ok {
				if o, ok := d.Of.(Owner); ok {
					delete(owners[o.TransactionalID], o.Key)
				}
			}
		})
		if err != nil {
			return nil, fmt.Errorf("read the owners in %s/%d: %w", MapTopic, p, err)
		}
	}
	count := map[string]int{}
	for id, keys := range owners {
		count[id] = len(keys)
	}
	return count, nil
}

// readAll reads a partition of MapTopic once and calls fn with what each record
// decodes to (see decoder.decode); those that are not ours or not readable are
// passed over.
func readAll(ctx context.Context, target Reader, mapPartition int32, fn func(what any)) error {
	from, err := target.ListOffset(ctx, MapTopic, mapPartition, earliest)
	if err != nil {
		return err
	}
	d := newDecoder()
	_, err = target.Read(ctx, MapTopic, mapPartition, from, func(rec wire.Record) error {
		what, err := d.decode(rec)
		if fault := (*FormatError)(nil); errors.As(err, &fault) {
			return nil
		}
		fn(what)
		return err
	})
	return err
}

func apply(what any, loaded map[Key]*loading) {
	switch what := what.(type) {
	case Anchor:
		if l := loaded[what.Key]; l != nil {
			l.Ledger.Add(what)
		}
	case *Block:
		if l := loaded[what.Key]; l != nil {
			l.part.take(*what)
			l.Filed.Add(*what)
			l.Open = l.Open || what.Open
		}
	case TopicPair:
		for k, l := range loaded {
			if k.Flow == what.Flow && k.Topic == what.SourceTopic {
				l.Pairs = append(l.Pairs, what)
			}
		}
	case Owner:
		if l := loaded[what.Key]; l != nil {
			l.Owners = append(withoutOwner(l.Owners, what.TransactionalID), what)
		}
	case Writer:
		if l := loaded[Key{Flow: what.Flow}]; l != nil {
			l.Writers = append(withoutWriter(l.Writers, what.TransactionalID), what)
		}
	case Provenance:
		if l := loaded[Key{Flow: what.Flow}]; l != nil {
			if l.Declared == nil {
				l.Declared = map[int64]struct{}{}
			}
			l.Declared[what.ProducerID] = struct{}{}
		}
	case Deleted:
		switch of := what.Of.(type) {
		case Owner:
			if l := loaded[of.Key]; l != nil {
				l.Owners = withoutOwner(l.Owners, of.TransactionalID)
			}
		case Writer:
			if l := loaded[Key{Flow: of.Flow}]; l != nil {
				l.Writers = withoutWriter(l.Writers, of.TransactionalID)
			}
		case Anchor:
			if l := loaded[of.Key]; l != nil {
				l.Ledger.remove(Producer{ID: of.ProducerID, Epoch: of.Epoch}, of.Steps[0].Sequence)
			}
		case Block:
			switch l := loaded[of.Key]; {
			case l == nil:
			case of.Open: // it goes last of all, see Forget
				l.part, l.Open = part{}, false
			default:
				l.part.read(func(r *Runs) { r.drop(of) })
				l.Filed.Remove(of)
			}
		}
	}
}

func withoutOwner(owners []Owner, id string) []Owner {
	return slices.DeleteFunc(owners, func(o Owner) bool { return o.TransactionalID == id })
}

func withoutWriter(writers []Writer, id string) []Writer {
	return slices.DeleteFunc(writers, func(w Writer) bool { return w.TransactionalID == id })
}
