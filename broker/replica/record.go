package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A metadata record is the value of one log record:
//
//	0      1         2
//	+------+---------+--------------------------+
//	| kind | version | body, by kind            |
//	+------+---------+--------------------------+
//
// Integers are varints (zigzag), strings and lists begin with an unsigned
// varint of their length, ids are 16 raw bytes, maps are lists of pairs sorted
// by key. Nothing follows the body. The log's own batches carry the checksum.
//
//	1 topic created        name, id, list of partitions (each a list of replicas), settings
//	2 topic deleted        id
//	3 partitions added     id, list of partitions
//	4 topic settings       id, settings (all that the topic has from now on)
//	5 broker settings      broker (-1: all), settings (all from now on)
//	6 producer ids         first one not given out
//	7 leadership renewed   broker: every partition it leads gets the next epoch
//	8 snapshot begins      -
//	9 snapshot topic       like 1, and for each partition leader, epoch, isr
//	10 snapshot ends       number of records since the beginning
//
// A snapshot is kinds 8, 9*, 5*, 6, 10 in a row: it replaces all that was
// before. One that has no end (a crash) counts for nothing.
type kind byte

const (
	topicCreated kind = iota + 1
	topicDeleted
	partitionsAdded
	topicConfigured
	brokerConfigured
	producerIDs
	leadershipRenewed
	snapshotBegins
	snapshotTopic
	snapshotEnds
)

const recordVersion = 0

// record is a decoded metadata record: one struct for all kinds, of which each
// uses its part.
type record struct {
	kind       kind
	name       string
	id         ID
	partitions []Partition
	configs    map[string]string
	broker     int32
	number     int64
}

func (r record) encode() []byte {
	b := []byte{byte(r.kind), recordVersion}
	switch r.kind {
	case snapshotBegins: // nothing more
	case topicCreated, snapshotTopic:
		b = appendString(b, r.name)
		b = append(b, r.id[:]...)
		b = r.appendPartitions(b)
		b = appendConfigs(b, r.configs)
	case topicDeleted:
		b = append(b, r.id[:]...)
	case partitionsAdded:
		b = append(b, r.id[:]...)
		b = r.appendPartitions(b)
	case topicConfigured:
		b = append(b, r.id[:]...)
		b = appendConfigs(b, r.configs)
	case brokerConfigured:
		b = binary.AppendVarint(b, int64(r.broker))
		b = appendConfigs(b, r.configs)
	case producerIDs, snapshotEnds:
		b = binary.AppendVarint(b, r.number)
	case leadershipRenewed:
		b = binary.AppendVarint(b, int64(r.broker))
	}
	return b
}

func (r record) appendPartitions(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.partitions)))
	for _, p := range r.partitions {
		b = appendInts(b, p.Replicas)
		if r.kind == snapshotTopic {
			b = binary.AppendVarint(b, int64(p.Leader))
			b = binary.AppendVarint(b, int64(p.LeaderEpoch))
			b = appendInts(b, p.ISR)
		}
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendInts(b []byte, list []int32) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, n := range list {
		b = binary.AppendVarint(b, int64(n))
	}
	return b
}

func appendConfigs(b []byte, configs map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(configs)))
	for _, k := range slices.Sorted(maps.Keys(configs)) {
		b = appendString(appendString(b, k), configs[k])
	}
	return b
}

var (
	errShort    = errors.New("ends too early")
	errTrailing = errors.New("has bytes after its end")
)

// decodeRecord reads one metadata record. Strings are copied.
func decodeRecord(b []byte) (record, error) {
	if len(b) < 2 {
		return record{}, fmt.Errorf("metadata record of %d bytes: %w", len(b), errShort)
	}
	r, d := record{kind: kind(b[0])}, decoder{rest: b[2:]}
	if r.kind < topicCreated || r.kind > snapshotEnds {
		return r, fmt.Errorf("metadata record of unknown kind %d: written by a newer kmirror?", r.kind)
	}
	if b[1] != recordVersion {
		return r, fmt.Errorf("metadata record of kind %d: unknown version %d: written by a newer kmirror?", r.kind, b[1])
	}
	switch r.kind {
	case snapshotBegins: // nothing more
	case topicCreated, snapshotTopic:
		r.name, r.id = d.string(), d.id()
		r.partitions, r.configs = d.partitions(r.kind), d.configs()
	case topicDeleted:
		r.id = d.id()
	case partitionsAdded:
		r.id, r.partitions = d.id(), d.partitions(r.kind)
	case topicConfigured:
		r.id, r.configs = d.id(), d.configs()
	case brokerConfigured:
		r.broker, r.configs = d.int32(), d.configs()
	case producerIDs, snapshotEnds:
		r.number = d.varint()
	case leadershipRenewed:
		r.broker = d.int32()
	}
	if d.err == nil && len(d.rest) > 0 {
		d.err = errTrailing
	}
	if d.err != nil {
		return r, fmt.Errorf("metadata record of kind %d: %w", r.kind, d.err)
	}
	return r, nil
}

// decoder reads on until its first error.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.rest = nil
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) int32() int32 {
	v := d.varint()
	if int64(int32(v)) != v {
		d.fail(fmt.Errorf("has %d where 32 bits are due", v))
	}
	return int32(v)
}

// length reads the length of something whose elements take at least one byte
// each, so that it cannot promise more than there is.
func (d *decoder) length() int {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > uint64(len(d.rest)-n) {
		d.fail(errShort)
		return 0
	}
	d.rest = d.rest[n:]
	return int(v)
}

func (d *decoder) string() string {
	n := d.length()
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) id() (id ID) {
	if len(d.rest) < len(id) {
		d.fail(errShort)
		return id
	}
	copy(id[:], d.rest)
	d.rest = d.rest[len(id):]
	return id
}

func (d *decoder) ints() []int32 {
	var list []int32
	for range d.length() {
		list = append(list, d.int32())
		if d.err != nil {
			return nil
		}
	}
	return list
}

func (d *decoder) partitions(k kind) []Partition {
	var list []Partition
	for range d.length() {
		p := Partition{Leader: -1, Replicas: d.ints()}
		if k == snapshotTopic {
			p.Leader, p.LeaderEpoch, p.ISR = d.int32(), d.int32(), d.ints()
		} else if len(p.Replicas) > 0 {
			p.Leader, p.ISR = p.Replicas[0], p.Replicas
		}
		if d.err != nil {
			return nil
		}
		list = append(list, p)
	}
	return list
}

func (d *decoder) configs() map[string]string {
	n := d.length()
	if n == 0 {
		return nil
	}
	configs := make(map[string]string)
	for range n {
		k := d.string()
		configs[k] = d.string()
		if d.err != nil {
			return nil
		}
	}
	return configs
}
