package storage

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"sort"
	"strings"
)

// epochStart says at which offset a leader epoch began.
type epochStart struct {
	epoch int32
	start int64
}

// epochs are the leader epochs of a log, ascending in both fields; a value that
// is replaced, never changed.
type epochs []epochStart

func (es epochs) latest() int32 {
	if len(es) == 0 {
		return -1
	}
	return es[len(es)-1].epoch
}

// at is the epoch that the record at offset was written in, -1 for unknown.
func (es epochs) at(offset int64) int32 {
	i := sort.Search(len(es), func(i int) bool { return es[i].start > offset })
	if i == 0 {
		return -1
	}
	return es[i-1].epoch
}

// end answers OffsetForLeaderEpoch (KIP-101, KIP-279): the largest epoch not
// above the one asked for, and where it ended; -1, -1 when that is unknown.
func (es epochs) end(epoch int32, logEnd int64) (int32, int64) {
	switch {
	case epoch < 0 || len(es) == 0 || epoch > es.latest():
		return -1, -1
	case epoch == es.latest():
		return epoch, logEnd
	case epoch < es[0].epoch:
		return epoch, es[0].start
	}
	i := sort.Search(len(es), func(i int) bool { return es[i].epoch > epoch })
	return es[i-1].epoch, es[i].start
}

// with is es and a new latest epoch. Epochs that began at the same offset or
// after it wrote nothing and go.
func (es epochs) with(epoch int32, start int64) epochs {
	keep := sort.Search(len(es), func(i int) bool { return es[i].start >= start || es[i].epoch >= epoch })
	return append(es[:keep:keep], epochStart{epoch, start})
}

// before is es without what began at or after end.
func (es epochs) before(end int64) epochs {
	keep := sort.Search(len(es), func(i int) bool { return es[i].start >= end })
	return es[:keep:keep]
}

// from is es for a log that begins at start.
func (es epochs) from(start int64) epochs {
	first := sort.Search(len(es), func(i int) bool { return es[i].start > start })
	if first == 0 {
		return es
	}
	kept := append(epochs(nil), es[first-1:]...)
	kept[0].start = start
	return kept
}

// The leader epoch checkpoint is a text: version 0, count, and a line
// "epoch start" for each.
func (es epochs) encode() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "0\n%d\n", len(es))
	for _, e := range es {
		fmt.Fprintf(&out, "%d %d\n", e.epoch, e.start)
	}
	return out.Bytes()
}

func decodeEpochs(content []byte) (epochs, error) {
	lines, err := checkpointLines(content)
	if err != nil {
		return nil, err
	}
	var es epochs
	for _, line := range lines {
		var e epochStart
		if _, err := fmt.Sscanf(line, "%d %d", &e.epoch, &e.start); err != nil {
			return nil, fmt.Errorf("leader epoch %q: %w", line, err)
		}
		if e.epoch < 0 || e.start < 0 || len(es) > 0 && (e.epoch <= es.latest() || e.start < es[len(es)-1].start) {
			return nil, fmt.Errorf("leader epoch %q contradicts the one before", line)
		}
		es = append(es, e)
	}
	return es, nil
}

// checkpointLines reads the frame that Kafka's text checkpoints share.
func checkpointLines(content []byte) ([]string, error) {
	scanner := bufio.NewScanner(bytes.NewReader(content))
	var lines []string
	for scanner.Scan() {
		lines = append(lines, strings.TrimSpace(scanner.Text()))
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	if len(lines) < 2 || lines[0] != "0" {
		return nil, errors.New("checkpoint is not of version 0")
	}
	if want := fmt.Sprint(len(lines) - 2); lines[1] != want {
		return nil, fmt.Errorf("checkpoint with %s entries where %s are announced", want, lines[1])
	}
	return lines[2:], nil
}
