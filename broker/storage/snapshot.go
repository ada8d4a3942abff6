package storage

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
)

// A producer snapshot, Kafka's ProducerStateManager format 1: the producers at
// the offset that names the file. It keeps the last batch of each; the four
// before it are read again from the log.
//
//	0         2     6       10
//	+---------+-----+-------+------------------------------+
//	| version | crc | count | count entries of 46 bytes    |
//	+---------+-----+-------+------------------------------+
//	                |<------- covered by crc (CRC-32C) --->|
//
//	entry: producer id 8, epoch 2, last sequence 4, last offset 8, offset delta 4,
//	       timestamp 8, coordinator epoch 4, first offset of open transaction 8
const (
	snapshotVersion   = 1
	snapshotHeader    = 10
	snapshotEntrySize = 46
	snapshotChecked   = 6
)

func encodeSnapshot(ps *producers) []byte {
	out := make([]byte, snapshotChecked, snapshotHeader+len(ps.byID)*snapshotEntrySize)
	binary.BigEndian.PutUint16(out, snapshotVersion)
	out = binary.BigEndian.AppendUint32(out, uint32(len(ps.byID)))
	for _, id := range slices.Sorted(maps.Keys(ps.byID)) {
		p := ps.byID[id]
		last := written{lastSequence: -1, lastOffset: -1}
		if p.n > 0 {
			last = p.recent[p.n-1]
		}
		out = binary.BigEndian.AppendUint64(out, uint64(id))
		out = binary.BigEndian.AppendUint16(out, uint16(p.epoch))
		out = binary.BigEndian.AppendUint32(out, uint32(last.lastSequence))
		out = binary.BigEndian.AppendUint64(out, uint64(last.lastOffset))
		out = binary.BigEndian.AppendUint32(out, uint32(last.offsetDelta))
		out = binary.BigEndian.AppendUint64(out, uint64(p.timestamp))
		out = binary.BigEndian.AppendUint32(out, uint32(p.coordinatorEpoch))
		out = binary.BigEndian.AppendUint64(out, uint64(p.transactionFirst))
	}
	sum := crc32.Checksum(out[snapshotChecked:], crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(out[2:], sum)
	return out
}

// decodeSnapshot reads a snapshot; now stands for when its producers were heard.
func decodeSnapshot(b []byte, now int64) (*producers, error) {
	if len(b) < snapshotHeader {
		return nil, fmt.Errorf("producer snapshot of %d bytes", len(b))
	}
	if v := binary.BigEndian.Uint16(b); v != snapshotVersion {
		return nil, fmt.Errorf("producer snapshot of version %d", v)
	}
	if sum := crc32.Checksum(b[snapshotChecked:], crc32.MakeTable(crc32.Castagnoli)); sum != binary.BigEndian.Uint32(b[2:]) {
		return nil, errors.New("producer snapshot: wrong checksum")
	}
	count := int(int32(binary.BigEndian.Uint32(b[6:])))
	b = b[snapshotHeader:]
	if count < 0 || len(b) != count*snapshotEntrySize {
		return nil, fmt.Errorf("producer snapshot: %d entries in %d bytes", count, len(b))
	}
	ps := newProducers()
	for ; len(b) > 0; b = b[snapshotEntrySize:] {
		p := &producer{
			epoch:            int16(binary.BigEndian.Uint16(b[8:])),
			timestamp:        int64(binary.BigEndian.Uint64(b[26:])),
			coordinatorEpoch: int32(binary.BigEndian.Uint32(b[34:])),
			transactionFirst: int64(binary.BigEndian.Uint64(b[38:])),
			seen:             now,
		}
		last := written{
			lastSequence: int32(binary.BigEndian.Uint32(b[10:])),
			lastOffset:   int64(binary.BigEndian.Uint64(b[14:])),
			offsetDelta:  int32(binary.BigEndian.Uint32(b[22:])),
			timestamp:    p.timestamp,
		}
		if last.lastOffset >= 0 {
			p.push(last)
		}
		id := int64(binary.BigEndian.Uint64(b))
		if p.transactionFirst >= 0 {
			ps.ongoing = append(ps.ongoing, openTransaction{first: p.transactionFirst, producer: id})
		} else {
			p.transactionFirst = -1
		}
		if id < 0 || ps.byID[id] != nil {
			return nil, fmt.Errorf("producer snapshot: producer %d is no id or there twice", id)
		}
		ps.byID[id] = p
	}
	slices.SortFunc(ps.ongoing, func(a, b openTransaction) int { return cmp.Compare(a.first, b.first) })
	return ps, nil
}
