package mm2

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
)

// Partition is a partition of a source topic.
type Partition struct {
	Topic     string
	Partition int32
}

// Positions is what MirrorMaker 2's source connector stored in its offsets topic: the
// last source offset that the target had acknowledged, by partition.
//
//	key    ["MirrorSourceConnector",{"cluster":"east","partition":0,"topic":"orders"}]
//	value  {"offset":123}        a null value takes the position back
type Positions struct {
	names []string // of the connector; the first that has a position holds
	alias string
	at    []map[Partition]int64 // by name

	// Foreign counts records that are not this connector's, Faulty those of it that
	// cannot be read.
	Foreign, Faulty int
}

// NewPositions makes an empty store for one source cluster's alias. Connectors are the
// names that the connector may have; where several have stored a position, that of the
// first holds.
func NewPositions(alias string, connectors ...string) *Positions {
	p := &Positions{names: connectors, alias: alias, at: make([]map[Partition]int64, len(connectors))}
	for i := range p.at {
		p.at[i] = map[Partition]int64{}
	}
	return p
}

// Add takes in a record of the offsets topic, in the order of the topic.
func (p *Positions) Add(key, value []byte) {
	name, at, err := decodeKey(key)
	n := -1
	for i, known := range p.names {
		if known == name {
			n = i
		}
	}
	switch {
	case n < 0 || err == nil && at.Cluster != p.alias:
		p.Foreign++
		return
	case err != nil || at.Topic == "" || at.Partition < 0:
		p.Faulty++
		return
	}
	where := Partition{at.Topic, at.Partition}
	if len(bytes.TrimSpace(value)) == 0 || bytes.Equal(bytes.TrimSpace(value), []byte("null")) {
		delete(p.at[n], where)
		return
	}
	var stored struct {
		Offset *int64 `json:"offset"`
	}
	if err := json.Unmarshal(value, &stored); err != nil || stored.Offset == nil || *stored.Offset < 0 || *stored.Offset == math.MaxInt64 {
		p.Faulty++
		return
	}
	p.at[n][where] = *stored.Offset
}

// position is the second part of a key.
type position struct {
	Cluster   string `json:"cluster"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
}

// decodeKey returns the connector's name, also where the rest is faulty.
func decodeKey(key []byte) (name string, at position, err error) {
	var parts []json.RawMessage
	if err := json.Unmarshal(key, &parts); err != nil || len(parts) != 2 {
		return "", at, fmt.Errorf("key %.80q is no pair of connector and partition", key)
	}
	if err := json.Unmarshal(parts[0], &name); err != nil {
		return "", at, fmt.Errorf("key %.80q names no connector: %w", key, err)
	}
	at.Partition = -1
	return name, at, json.Unmarshal(parts[1], &at)
}

// Stored is the last source offset stored for a partition; not ok where there is none.
func (p *Positions) Stored(at Partition) (offset int64, ok bool) {
	for _, stored := range p.at {
		if offset, ok = stored[at]; ok {
			return offset, true
		}
	}
	return 0, false
}

// Len counts the partitions that have a position.
func (p *Positions) Len() int {
	all := map[Partition]struct{}{}
	for _, stored := range p.at {
		for at := range stored {
			all[at] = struct{}{}
		}
	}
	return len(all)
}
