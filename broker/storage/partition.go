package storage

import (
	"fmt"
	"strconv"
	"strings"
)

// Partition names one log.
type Partition struct {
	Topic string
	ID    int32
}

func (p Partition) String() string { return fmt.Sprintf("%s-%d", p.Topic, p.ID) }

// check refuses names that cannot be a directory of ours.
func (p Partition) check() error {
	legal := p.Topic != "" && len(p.Topic) <= 249 && p.Topic != "." && p.Topic != ".." && p.ID >= 0
	for _, c := range []byte(p.Topic) {
		legal = legal && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
	}
	if !legal {
		return fmt.Errorf("partition %d of topic %q: not a legal name", p.ID, p.Topic)
	}
	return nil
}

// parsePartition reads the name of a partition's directory.
func parsePartition(dir string) (Partition, bool) {
	i := strings.LastIndexByte(dir, '-')
	if i <= 0 {
		return Partition{}, false
	}
	id, err := strconv.ParseInt(dir[i+1:], 10, 32)
	p := Partition{dir[:i], int32(id)}
	return p, err == nil && p.check() == nil && p.String() == dir
}
