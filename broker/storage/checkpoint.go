package storage

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"
)

// Files of a data directory that concern all logs, and of a partition's.
const (
	recoveryPointFile = "recovery-point-offset-checkpoint"
	logStartFile      = "log-start-offset-checkpoint"
	cleanShutdownFile = ".kafka_cleanshutdown"
	lockFile          = ".lock"
	metaFile          = "meta.properties"
	epochsFile        = "leader-epoch-checkpoint"
	partitionFile     = "partition.metadata"
)

// encodeOffsets writes an offset checkpoint: version 0, count, and a line
// "topic partition offset" for each.
func encodeOffsets(offsets map[Partition]int64) []byte {
	names := make([]Partition, 0, len(offsets))
	for p := range offsets {
		names = append(names, p)
	}
	sort.Slice(names, func(i, j int) bool {
		if names[i].Topic != names[j].Topic {
			return names[i].Topic < names[j].Topic
		}
		return names[i].ID < names[j].ID
	})
	var out bytes.Buffer
	fmt.Fprintf(&out, "0\n%d\n", len(names))
	for _, p := range names {
		fmt.Fprintf(&out, "%s %d %d\n", p.Topic, p.ID, offsets[p])
	}
	return out.Bytes()
}

func decodeOffsets(content []byte) (map[Partition]int64, error) {
	lines, err := checkpointLines(content)
	if err != nil {
		return nil, err
	}
	offsets := make(map[Partition]int64, len(lines))
	for _, line := range lines {
		var p Partition
		var offset int64
		if _, err := fmt.Sscanf(line, "%s %d %d", &p.Topic, &p.ID, &offset); err != nil {
			return nil, fmt.Errorf("checkpoint %q: %w", line, err)
		}
		if offset < 0 {
			return nil, fmt.Errorf("checkpoint %q: negative offset", line)
		}
		offsets[p] = offset
	}
	return offsets, nil
}

// encodePartition writes partition.metadata.
func encodePartition(id [16]byte) []byte {
	return fmt.Appendf(nil, "version: 0\ntopic_id: %s\n", EncodeID(id))
}

func decodePartition(content []byte) (id [16]byte, err error) {
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch value = strings.TrimSpace(value); key {
		case "version":
			if value != "0" {
				return id, fmt.Errorf("partition metadata of version %q", value)
			}
		case "topic_id":
			return DecodeID(value)
		}
	}
	return id, errors.New("partition metadata without a topic id")
}

// EncodeID writes a topic, cluster or directory id as Kafka does: base64 for
// URLs, without padding.
func EncodeID(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// DecodeID reads what EncodeID wrote.
func DecodeID(text string) (id [16]byte, err error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return id, fmt.Errorf("id %q: %w", text, err)
	}
	if len(b) != len(id) {
		return id, fmt.Errorf("id %q has %d bytes, not 16", text, len(b))
	}
	return [16]byte(b), nil
}

// encodeCleanShutdown writes the marker of an orderly stop.
func encodeCleanShutdown() []byte {
	out, _ := json.Marshal(struct {
		Version     int   `json:"version"`
		BrokerEpoch int64 `json:"brokerEpoch"`
	}{0, -1}) // numbers always marshal
	return out
}
