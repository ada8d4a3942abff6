package checkpoint_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// memoryLogs is a cluster of partitions in memory. Its switches make appends
// fail or hang.
type memoryLogs struct {
	mu      sync.Mutex // guards the fields below
	logs    map[string][]wire.Record
	batches int           // appended
	refuse  error         // what appends fail with
	lost    bool          // failing appends are carried out all the same
	hang    chan struct{} // not nil: appends wait until it is closed
	changed chan struct{} // closed and made anew at every append
	made    map[string]map[string]string
}

func newMemoryLogs() *memoryLogs {
	return &memoryLogs{logs: map[string][]wire.Record{}, changed: make(chan struct{}), made: map[string]map[string]string{}}
}

func at(topic string, partition int32) string { return topic + "/" + string('0'+partition) }

func (m *memoryLogs) Append(ctx context.Context, topic string, partition int32, records []wire.Record) (int64, error) {
	m.mu.Lock()
	hang := m.hang
	m.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	base := int64(len(m.logs[at(topic, partition)]))
	if m.refuse == nil || m.lost {
		m.batches++
		for i, rec := range records {
			rec.Offset = base + int64(i)
			m.logs[at(topic, partition)] = append(m.logs[at(topic, partition)], rec)
		}
		close(m.changed)
		m.changed = make(chan struct{})
	}
	return base, m.refuse
}

func (m *memoryLogs) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *memoryLogs) records(topic string, partition int32) []wire.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.logs[at(topic, partition)]
}

func (m *memoryLogs) appended() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.batches
}

func (m *memoryLogs) ListOffset(_ context.Context, topic string, partition int32, timestamp int64) (int64, error) {
	if timestamp == -1 {
		return int64(len(m.records(topic, partition))), nil
	}
	return 0, nil
}

func (m *memoryLogs) Read(_ context.Context, topic string, partition int32, from int64, fn func(wire.Record) error) (int64, error) {
	for _, rec := range m.records(topic, partition)[from:] {
		if err := fn(rec); err != nil {
			return from, err
		}
		from++
	}
	return from, nil
}

func (m *memoryLogs) Follow(ctx context.Context, topic string, partition int32, from int64, caughtUp func(), fn func(wire.Record) error) error {
	once := sync.OnceFunc(caughtUp)
	for {
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		next, err := m.Read(ctx, topic, partition, from, fn)
		if err != nil {
			return err
		}
		from = next
		once()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *memoryLogs) EnsureInternalTopic(_ context.Context, name string, _ int32, configs map[string]string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made[name] = configs
	return nil
}

func (m *memoryLogs) TopicConfigs(_ context.Context, topics []string) (map[string]map[string]kafka.ConfigEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]map[string]kafka.ConfigEntry{}
	for _, name := range topics {
		all[name] = map[string]kafka.ConfigEntry{}
		for key, value := range m.made[name] {
			all[name][key] = kafka.ConfigEntry{Value: value}
		}
	}
	return all, nil
}

func (m *memoryLogs) AlterTopicConfigs(_ context.Context, topic string, set map[string]string, _ []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.made[topic], set)
	return nil
}

var errBroken = errors.New("the broker is on fire")

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
