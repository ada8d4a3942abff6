package integration_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// history is what a story knows about the records of one topic that were sent:
// each is numbered in its partition, made from its number alone, and has a
// fate. What is read back later is held against it.
//
// It is safe for concurrent use.
type history struct {
	topic string
	size  int    // bytes of a value, about
	site  string // where several histories share a topic: which of them this is

	mu    sync.Mutex // guards the fields below
	fates map[int32][]fate
}

// fate is what became of a record that was sent.
type fate int8

const (
	pending fate = iota // no answer: it may be in the log
	acked               // it must be in the log
)

func newHistory(topic string, partitions int32, size int) *history {
	h := &history{topic: topic, size: size, fates: map[int32][]fate{}}
	for p := range partitions {
		h.fates[p] = nil
	}
	return h
}

// next makes the partition's next record and remembers it as pending.
func (h *history) next(partition int32) *kgo.Record {
	h.mu.Lock()
	defer h.mu.Unlock()
	number := len(h.fates[partition])
	h.fates[partition] = append(h.fates[partition], pending)
	return h.record(partition, number)
}

// ack says that the cluster confirmed the record.
func (h *history) ack(r *kgo.Record) {
	partition, number, err := identity(r)
	if err != nil {
		panic(err) // our own record
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fates[partition][number] = acked
}

// counts says how many records were sent, and how many of them confirmed.
func (h *history) counts() (sent, confirmed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, fates := range h.fates {
		sent += len(fates)
		for _, f := range fates {
			if f == acked {
				confirmed++
			}
		}
	}
	return sent, confirmed
}

// started is the timestamp of every partition's record 0: an hour ago, since
// much older records would be old enough to expire.
var started = sync.OnceValue(func() time.Time { return time.Now().Add(-time.Hour) })

// record makes record number of the partition. Everything in it follows from
// the two numbers, so whatever changes on the way is seen.
func (h *history) record(partition int32, number int) *kgo.Record {
	seed := fnv.New64a()
	fmt.Fprintf(seed, "%s/%d/%d%s", h.topic, partition, number, h.site)
	dice := seed.Sum64()
	roll := func(n uint64) uint64 { // SplitMix64
		dice += 0x9e3779b97f4a7c15
		z := dice
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return (z ^ z>>31) % n
	}
	r := &kgo.Record{
		Topic:     h.topic,
		Partition: partition,
		Timestamp: started().Add(time.Duration(number) * time.Millisecond),
		Headers: []kgo.RecordHeader{
			{Key: "number", Value: binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, uint32(partition)), uint64(number))},
		},
	}
	if h.site != "" {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "site", Value: []byte(h.site)})
	}
	if roll(4) > 0 {
		r.Key = fmt.Appendf(nil, "key-%d", roll(1000))
	}
	if roll(8) == 0 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "empty", Value: nil}, kgo.RecordHeader{Key: "tür", Value: []byte{0, 255}})
	}
	switch roll(50) {
	case 0: // a tombstone
	case 1:
		r.Value = []byte{}
	default:
		r.Value = make([]byte, h.size/2+int(roll(uint64(h.size+1))))
		for i := 0; i < len(r.Value); i += 8 {
			var word [8]byte
			binary.LittleEndian.PutUint64(word[:], roll(1<<20)) // compresses by half or so
			copy(r.Value[i:], word[:])
		}
	}
	return r
}

// identity reads partition and number off a record.
func identity(r *kgo.Record) (partition int32, number int, err error) {
	for _, header := range r.Headers {
		if header.Key == "number" && len(header.Value) == 12 {
			return int32(binary.BigEndian.Uint32(header.Value)), int(binary.BigEndian.Uint64(header.Value[4:])), nil
		}
	}
	return 0, 0, fmt.Errorf("a record without a number: key %.40q value %.40q", r.Key, r.Value)
}

// verdict is what a log has that it should not have, or lacks. The zero value
// is a clean one.
type verdict struct {
	lost      []string // confirmed, and not there
	doubled   []string // there more than once
	reordered []string // after a record with a higher number
	changed   []string // not as it was sent, or in another partition
	alien     []string // never sent
}

// ok tells that nothing was found.
func (v verdict) ok() bool { return v.String() == "" }

func (v verdict) String() string {
	var text bytes.Buffer
	for _, kind := range []struct {
		name   string
		faults []string
	}{{"lost", v.lost}, {"doubled", v.doubled}, {"reordered", v.reordered}, {"changed", v.changed}, {"alien", v.alien}} {
		if len(kind.faults) > 0 {
			shown := kind.faults[:min(5, len(kind.faults))]
			fmt.Fprintf(&text, "%d %s: %v\n", len(kind.faults), kind.name, shown)
		}
	}
	return text.String()
}

// check holds the records read from a topic, by partition and in the order of
// the log, against the history.
func (h *history) check(logs map[int32][]*kgo.Record) verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	var v verdict
	seen := map[int32][]int{}
	for partition, fates := range h.fates {
		seen[partition] = make([]int, len(fates))
	}
	for at, log := range logs {
		highest := -1
		for _, r := range log {
			partition, number, err := identity(r)
			if err != nil || number < 0 || number >= len(h.fates[partition]) {
				v.alien = append(v.alien, fmt.Sprintf("%d@%d: %.60q", at, r.Offset, r.Value))
				continue
			}
			name := fmt.Sprintf("%d#%d@%d", partition, number, r.Offset)
			if what := difference(h.record(partition, number), r); at != partition {
				v.changed = append(v.changed, fmt.Sprintf("%s: partition %d", name, at))
			} else if what != "" {
				v.changed = append(v.changed, name+": "+what)
			}
			seen[partition][number]++
			if seen[partition][number] > 1 {
				v.doubled = append(v.doubled, name)
			} else if number < highest {
				v.reordered = append(v.reordered, fmt.Sprintf("%s after #%d", name, highest))
			}
			highest = max(highest, number)
		}
	}
	for partition, fates := range h.fates {
		for number, f := range fates {
			if f == acked && seen[partition][number] == 0 {
				v.lost = append(v.lost, fmt.Sprintf("%d#%d", partition, number))
			}
		}
	}
	for _, faults := range [][]string{v.lost, v.doubled, v.reordered, v.changed, v.alien} {
		slices.Sort(faults)
	}
	return v
}

// difference names the first thing in which two records are not the same, or
// nothing. Where a record stands (topic, partition, offset) does not count.
func difference(want, got *kgo.Record) string {
	switch {
	case !sameBytes(want.Key, got.Key):
		return fmt.Sprintf("key %.40q, was %.40q", got.Key, want.Key)
	case !sameBytes(want.Value, got.Value):
		return fmt.Sprintf("value of %d bytes, was %d: %.40q, was %.40q", len(got.Value), len(want.Value), got.Value, want.Value)
	case want.Timestamp.UnixMilli() != got.Timestamp.UnixMilli():
		return fmt.Sprintf("timestamp %d, was %d", got.Timestamp.UnixMilli(), want.Timestamp.UnixMilli())
	case !slices.EqualFunc(want.Headers, got.Headers, func(a, b kgo.RecordHeader) bool {
		return a.Key == b.Key && sameBytes(a.Value, b.Value)
	}):
		return fmt.Sprintf("headers %.80v, were %.80v", got.Headers, want.Headers)
	}
	return ""
}

// sameBytes tells null from empty.
func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// sameLogs names the first place where two topics do not hold the same records
// in the same order, or nothing.
func sameLogs(want, got map[int32][]*kgo.Record) string {
	for partition := range max(int32(len(want)), int32(len(got)), 64) {
		a, b := want[partition], got[partition]
		for i := range min(len(a), len(b)) {
			if what := difference(a[i], b[i]); what != "" {
				return fmt.Sprintf("partition %d: record %d (offset %d, was %d): %s", partition, i, b[i].Offset, a[i].Offset, what)
			}
		}
		if len(a) != len(b) {
			return fmt.Sprintf("partition %d: %d records, were %d", partition, len(b), len(a))
		}
	}
	return ""
}
