package replica_test

import (
	"context"
	"errors"
	"slices"

	"kmirror/broker/replica"
)

// memLog is a metadata log in memory. It works, and can be made to fail.
type memLog struct {
	first   int64    // offset of records[0]
	records [][]byte // what is durable
	crash   int      // Appends left before everything fails; -1: never
	chunks  []int64  // first offset of each Append: what a crash can leave ends at one
	keep    bool     // Trim does nothing, as if the crash came before it
}

func newMemLog() *memLog { return &memLog{crash: -1} }

func (l *memLog) Name() string { return "mem" }

func (l *memLog) end() int64 { return l.first + int64(len(l.records)) }

func (l *memLog) Append(_ context.Context, records [][]byte) (int64, error) {
	if l.crash == 0 {
		return 0, errors.New("no space left on device")
	}
	if l.crash > 0 {
		l.crash--
	}
	at := l.end()
	l.chunks = append(l.chunks, at)
	for _, r := range records {
		l.records = append(l.records, slices.Clone(r))
	}
	return at, nil
}

func (l *memLog) Read(_ context.Context, fn func(int64, []byte) error) error {
	for i, r := range l.records {
		if err := fn(l.first+int64(i), slices.Clone(r)); err != nil {
			return err
		}
	}
	return nil
}

func (l *memLog) Trim(before int64) error {
	if !l.keep {
		l.records = l.records[before-l.first:]
		l.first = before
	}
	return nil
}

// upTo is a log with the records before an offset.
func (l *memLog) upTo(offset int64) *memLog {
	return &memLog{first: l.first, records: l.records[:offset-l.first], crash: -1}
}

// shape is an image as plain data, to compare.
type shape struct {
	Offset  int64
	NextPID int64
	Topics  []replica.Topic
	Brokers map[int32]map[string]string
	Count   int
}

func shapeOf(m *replica.Image) shape {
	s := shape{Offset: m.Offset(), NextPID: m.NextProducerID(), Count: m.Partitions(), Brokers: map[int32]map[string]string{}}
	for _, t := range m.Topics() {
		s.Topics = append(s.Topics, *t)
	}
	for _, b := range []int32{replica.AnyBroker, 1, 2, 3} {
		if c := m.BrokerConfigs(b); len(c) > 0 {
			s.Brokers[b] = c
		}
	}
	return s
}
