package replica

import (
	"fmt"
	"slices"
)

// replayer applies records in log order to an image of its own. It is the one
// place where a record becomes a change.
type replayer struct {
	image    *Image
	snapshot *Image // being read; nil: none
	parts    int64  // records of that snapshot so far
	count    int64  // records since the last snapshot
}

// apply takes the record at offset. The image must not be published yet.
func (p *replayer) apply(offset int64, r record) error {
	p.count++
	switch r.kind {
	case snapshotBegins:
		p.snapshot, p.parts = newImage(), 0
	case snapshotEnds:
		if p.snapshot == nil || r.number != p.parts {
			return fmt.Errorf("snapshot ends after %d records, not after %d", p.parts, r.number)
		}
		p.image, p.snapshot, p.count = p.snapshot, nil, p.parts
	default:
		target := p.image
		if p.snapshot != nil {
			target = p.snapshot
			p.parts++
		}
		if (p.snapshot != nil) != r.inSnapshot() && r.kind != brokerConfigured && r.kind != producerIDs {
			return fmt.Errorf("record of kind %d in the wrong place: snapshot under way: %t", r.kind, p.snapshot != nil)
		}
		if err := target.apply(r); err != nil {
			return err
		}
	}
	p.image.next = offset + 1
	return nil
}

// inSnapshot tells whether a snapshot can hold records of that kind. Nothing
// but a new snapshot follows one that has no end, so kinds 5 and 6, which occur
// in both places, cannot be mistaken.
func (r record) inSnapshot() bool {
	return r.kind == snapshotTopic || r.kind == brokerConfigured || r.kind == producerIDs
}

func (m *Image) apply(r record) error {
	switch r.kind {
	case topicCreated, snapshotTopic:
		if err := ValidateTopicName(r.name); err != nil {
			return err
		}
		if err := checkPartitions(r); err != nil {
			return err
		}
		if m.topics[r.name] != nil || m.byID[r.id] != nil {
			return fmt.Errorf("topic %q is created twice", r.name)
		}
		m.put(&Topic{Name: r.name, ID: r.id, Internal: Internal(r.name), Partitions: r.partitions, Configs: r.configs})
	case producerIDs:
		m.nextPID = r.number
	case brokerConfigured:
		if len(r.configs) == 0 {
			delete(m.brokers, r.broker)
		} else {
			m.brokers[r.broker] = r.configs
		}
	case leadershipRenewed:
		m.renew(r.broker)
	default:
		t := m.byID[r.id]
		if t == nil {
			return fmt.Errorf("topic id %x is not known", r.id)
		}
		return m.applyTo(t, r)
	}
	return nil
}

func (m *Image) applyTo(t *Topic, r record) error {
	switch r.kind {
	case topicDeleted:
		m.drop(t)
	case partitionsAdded:
		if err := checkPartitions(r); err != nil {
			return err
		}
		grown := *t
		grown.Partitions = slices.Concat(t.Partitions, r.partitions)
		m.put(&grown)
	case topicConfigured:
		changed := *t
		changed.Configs = r.configs
		m.put(&changed)
	default:
		return fmt.Errorf("kind %d out of place", r.kind)
	}
	return nil
}

// checkPartitions refuses what no controller writes.
func checkPartitions(r record) error {
	if len(r.partitions) == 0 {
		return fmt.Errorf("no partitions for topic %q, id %x", r.name, r.id)
	}
	for _, p := range r.partitions {
		if len(p.Replicas) == 0 {
			return fmt.Errorf("a partition without replicas for topic %q, id %x", r.name, r.id)
		}
	}
	return nil
}

// renew gives every partition that broker leads its next epoch.
func (m *Image) renew(broker int32) {
	for _, t := range slices.Clone(m.sorted) {
		renewed := *t
		renewed.Partitions = slices.Clone(t.Partitions)
		changed := false
		for i := range renewed.Partitions {
			if p := &renewed.Partitions[i]; p.Leader == broker {
				p.LeaderEpoch++
				changed = true
			}
		}
		if changed {
			m.put(&renewed)
		}
	}
}

// records is the image as a snapshot.
func (m *Image) records() []record {
	out := []record{{kind: snapshotBegins}}
	for _, t := range m.sorted {
		out = append(out, record{kind: snapshotTopic, name: t.Name, id: t.ID, partitions: t.Partitions, configs: t.Configs})
	}
	for _, b := range sortedBrokers(m.brokers) {
		out = append(out, record{kind: brokerConfigured, broker: b, configs: m.brokers[b]})
	}
	out = append(out, record{kind: producerIDs, number: m.nextPID})
	return append(out, record{kind: snapshotEnds, number: int64(len(out) - 1)})
}

func sortedBrokers(m map[int32]map[string]string) (ids []int32) {
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
