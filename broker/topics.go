package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/replica"
	"kmirror/broker/storage"
)

// image is the cluster as it stands.
func (n *Node) image() *replica.Image { return n.controller.Image() }

// topicFor finds a topic by id or by name.
func (n *Node) topicFor(byID bool, name string, id [16]byte) (*replica.Topic, error) {
	if byID {
		if t := n.image().TopicByID(id); t != nil {
			return t, nil
		}
		return nil, refuse(kerr.UnknownTopicID, "")
	}
	if t := n.image().Topic(name); t != nil {
		return t, nil
	}
	return nil, refuse(kerr.UnknownTopicOrPartition, "")
}

// leading finds the log of a partition that this node leads, and its leader epoch.
func (n *Node) leading(t *replica.Topic, partition int32) (*storage.Log, int32, error) {
	if partition < 0 || int(partition) >= len(t.Partitions) {
		return nil, 0, refuse(kerr.UnknownTopicOrPartition, "")
	}
	p := &t.Partitions[partition]
	if p.Leader != n.id {
		return nil, 0, refuse(kerr.NotLeaderForPartition, "")
	}
	log := n.store.Log(t.Name, partition)
	if log == nil { // the topic is being deleted; or its directory could not be made, then the log of the process says why
		return nil, 0, refuse(kerr.NotLeaderForPartition, "")
	}
	return log, p.LeaderEpoch, nil
}

// topicsChanged makes, configures and deletes logs as the image says. It runs
// before a new image is published, so whoever sees a topic finds its logs.
func (n *Node) topicsChanged(old, current *replica.Image) {
	if old == nil {
		n.adoptLogs(current)
		return
	}
	for _, t := range current.Topics() {
		switch before := old.TopicByID(t.ID); before {
		case t:
		case nil:
			n.openLogs(current, t, 0)
		default:
			n.openLogs(current, t, len(before.Partitions))
			n.configureLogs(current, t)
		}
	}
	for _, t := range old.Topics() {
		if current.TopicByID(t.ID) == nil {
			for p := range t.Partitions {
				if err := n.store.Delete(t.Name, int32(p)); err != nil {
					n.logger.Error("cannot delete a partition's log", slog.String("topic", t.Name), slog.Int("partition", p), slog.Any("error", err))
				}
			}
			n.deleted(t)
		}
	}
	if settingsDiffer(old, current, n.id) {
		for _, t := range current.Topics() {
			n.configureLogs(current, t)
		}
	}
}

// adoptLogs compares the data directory with the image at the start.
func (n *Node) adoptLogs(image *replica.Image) {
	for _, t := range image.Topics() {
		n.openLogs(image, t, 0)
	}
	for _, log := range n.store.Logs() {
		if log.Topic() == metadataTopic {
			continue
		}
		if t := image.Topic(log.Topic()); t == nil || int(log.Partition().ID) >= len(t.Partitions) {
			n.logger.Warn("a log belongs to no topic: it is left alone until a topic of its name is created",
				slog.String("dir", log.Dir()))
		}
	}
}

// openLogs makes what is missing of a topic's logs from a partition number on.
// One that stands in the way and belongs to another topic id is deleted: its
// topic was, and the process died before the files were.
func (n *Node) openLogs(image *replica.Image, t *replica.Topic, from int) {
	cfg := n.logConfig(image, t)
	for p := from; p < len(t.Partitions); p++ {
		partition := int32(p)
		if log := n.store.Log(t.Name, partition); log != nil && log.TopicID() != t.ID {
			if err := n.store.Delete(t.Name, partition); err != nil {
				n.logger.Error("cannot delete the log of a former topic", slog.String("topic", t.Name), slog.Int("partition", p), slog.Any("error", err))
			}
		}
		log, err := n.store.Create(t.Name, t.ID, partition, cfg)
		if err != nil {
			n.logger.Error("cannot make a partition's log", slog.String("topic", t.Name), slog.Int("partition", p), slog.Any("error", err))
			continue
		}
		log.SetConfig(cfg)
	}
}

func (n *Node) configureLogs(image *replica.Image, t *replica.Topic) {
	cfg := n.logConfig(image, t)
	for p := range t.Partitions {
		if log := n.store.Log(t.Name, int32(p)); log != nil {
			log.SetConfig(cfg)
		}
	}
}

// deleted forgets what else is known of a topic.
func (n *Node) deleted(t *replica.Topic) {
	if n.groups != nil {
		n.groups.DropTopic(t.Name)
	}
}

// createTopic makes a topic with the broker's defaults. Somebody else may be
// quicker, which is as good.
func (n *Node) createTopic(ctx context.Context, name string) (*replica.Topic, error) {
	return n.created(n.controller.CreateTopic(ctx, replica.TopicSpec{Name: name, Partitions: -1, ReplicationFactor: -1}, false))(name)
}

// ensureInternal makes one of Kafka's own topics if it is missing.
func (n *Node) ensureInternal(ctx context.Context, name string) (*replica.Topic, error) {
	if t := n.image().Topic(name); t != nil {
		return t, nil
	}
	text := func(s string) *string { return &s }
	spec := replica.TopicSpec{Name: name, ReplicationFactor: 1}
	switch name {
	case offsetsTopic:
		spec.Partitions = n.settings.offsetsPartitions
		spec.Configs = map[string]*string{
			"cleanup.policy": text("compact"), "compression.type": text("producer"), "segment.bytes": text("104857600"),
		}
	case transactionsTopic:
		spec.Partitions = n.settings.transactionPartitions
		spec.Configs = map[string]*string{
			"cleanup.policy": text("compact"), "compression.type": text("uncompressed"), "segment.bytes": text("104857600"),
			"min.insync.replicas": text("1"), "unclean.leader.election.enable": text("false"),
		}
	default:
		return nil, refuse(kerr.UnknownTopicOrPartition, "")
	}
	return n.created(n.controller.CreateTopic(ctx, spec, false))(name)
}

// created turns the answer of CreateTopic into the topic, also when it existed.
func (n *Node) created(t *replica.Topic, err error) func(name string) (*replica.Topic, error) {
	return func(name string) (*replica.Topic, error) {
		if errors.Is(err, kerr.TopicAlreadyExists) {
			if t := n.image().Topic(name); t != nil {
				return t, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("create topic %s: %w", name, err)
		}
		return t, nil
	}
}
