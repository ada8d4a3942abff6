package kafka

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Metadata is what a cluster says of itself. It is the receiver's own.
type Metadata struct {
	ClusterID  string // empty when the cluster names none
	Controller int32  // where admin requests go, -1 when there is none
	Brokers    map[int32]string
	Topics     map[string]*Topic
}

// Topic is one topic of a cluster. Topics are shared and not to be changed.
type Topic struct {
	Name       string
	ID         [16]byte // zero when the cluster knows no topic ids (before Kafka 2.8)
	Internal   bool
	Err        error // a *kerr.Error: the topic is unknown, hidden, ...; nil: fine
	Partitions []Partition
}

// Partition is one partition of a topic; its place in Topic.Partitions is its id.
type Partition struct {
	ID          int32
	Leader      int32 // -1: none at the moment
	LeaderEpoch int32 // -1: not told (before Kafka 2.1)
	Replicas    []int32
	ISR         []int32
	Err         error // a *kerr.Error, also where the cluster left the partition out; nil: fine
}

const (
	// maxPartitions bounds the partition ids that are believed.
	maxPartitions = 1 << 20
	// metadataForbidsCreation is the first version that can say so (Kafka 0.11).
	metadataForbidsCreation = 4
)

// Metadata asks any broker about the given topics, or about all of them when
// none is given. It never creates a topic. What a topic or partition lacks is
// in its Err; the error of the call is that of the cluster.
func (c *Cluster) Metadata(ctx context.Context, topics ...string) (*Metadata, error) {
	m, err := c.fetchMetadata(ctx, topics, len(topics) == 0)
	if err != nil {
		return nil, c.errorf(err, "metadata")
	}
	return m, nil
}

// fetchMetadata asks for all topics, for those given, or for the brokers only.
func (c *Cluster) fetchMetadata(ctx context.Context, topics []string, all bool) (*Metadata, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	if !all {
		req.Topics = make([]kmsg.MetadataRequestTopic, 0, len(topics))
		for _, name := range topics {
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = new(name)
			req.Topics = append(req.Topics, t)
		}
	}
	resp, err := as[*kmsg.MetadataResponse](c.anyBroker(ctx, atLeast(req, metadataForbidsCreation)))
	if err != nil {
		return nil, err
	}
	m, err := readMetadata(resp)
	if err != nil {
		return nil, err
	}
	c.remember(m, all)
	return m, nil
}

func readMetadata(resp *kmsg.MetadataResponse) (*Metadata, error) {
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, err
	}
	m := &Metadata{
		Controller: resp.ControllerID,
		Brokers:    make(map[int32]string, len(resp.Brokers)),
		Topics:     make(map[string]*Topic, len(resp.Topics)),
	}
	if resp.ClusterID != nil {
		m.ClusterID = *resp.ClusterID
	}
	for _, b := range resp.Brokers {
		m.Brokers[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	for i := range resp.Topics {
		t, err := readTopic(&resp.Topics[i])
		if err != nil {
			return nil, err
		}
		m.Topics[t.Name] = t
	}
	return m, nil
}

func readTopic(t *kmsg.MetadataResponseTopic) (*Topic, error) {
	topic := &Topic{ID: t.TopicID, Internal: t.IsInternal, Err: kerr.ErrorForCode(t.ErrorCode)}
	if t.Topic != nil {
		topic.Name = *t.Topic
	}
	count := int32(0)
	for i := range t.Partitions {
		id := t.Partitions[i].Partition
		if id < 0 || id >= maxPartitions {
			return nil, fmt.Errorf("topic %s: partition %d is beyond belief", topic.Name, id)
		}
		count = max(count, id+1)
	}
	topic.Partitions = make([]Partition, count)
	for id := range topic.Partitions {
		topic.Partitions[id] = Partition{ID: int32(id), Leader: -1, LeaderEpoch: -1, Err: kerr.UnknownTopicOrPartition}
	}
	for i := range t.Partitions {
		p := &t.Partitions[i]
		err := kerr.ErrorForCode(p.ErrorCode)
		if p.ErrorCode == kerr.ReplicaNotAvailable.Code { // clients may ignore it
			err = nil
		}
		topic.Partitions[p.Partition] = Partition{
			ID: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, ISR: p.ISR, Err: err,
		}
	}
	return topic, nil
}

// remember keeps the brokers and topics of m for later requests.
func (c *Cluster) remember(m *Metadata, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clusterID, c.controller = m.ClusterID, m.Controller
	if len(m.Brokers) > 0 {
		c.brokers = maps.Clone(m.Brokers)
	}
	if all {
		c.topics = make(map[string]*Topic, len(m.Topics))
	}
	for name, t := range m.Topics {
		if t.Err != nil {
			delete(c.topics, name)
			continue
		}
		c.topics[name] = t
	}
}

// topic is what is known of a topic, asked for when nothing is.
func (c *Cluster) topic(ctx context.Context, name string) (*Topic, error) {
	c.mu.Lock()
	t := c.topics[name]
	c.mu.Unlock()
	if t != nil {
		return t, nil
	}
	m, err := c.fetchMetadata(ctx, []string{name}, false)
	if err != nil {
		return nil, err
	}
	t = m.Topics[name]
	if t == nil {
		return nil, kerr.UnknownTopicOrPartition
	}
	if t.Err != nil {
		return nil, t.Err
	}
	return t, nil
}

// forgetTopic makes the next use of a topic ask again.
func (c *Cluster) forgetTopic(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.topics, name)
}

// partition is what is known of a partition.
func (t *Topic) partition(id int32) (*Partition, error) {
	if id < 0 || int(id) >= len(t.Partitions) {
		return nil, kerr.UnknownTopicOrPartition
	}
	p := &t.Partitions[id]
	switch {
	case p.Err != nil:
		return nil, p.Err
	case p.Leader < 0:
		return nil, kerr.LeaderNotAvailable
	}
	return p, nil
}

// brokerAddress is where a broker listens, asked for when it is not known.
func (c *Cluster) brokerAddress(ctx context.Context, broker int32) (string, error) {
	if addr, ok := c.knownAddress(broker); ok {
		return addr, nil
	}
	if _, err := c.fetchMetadata(ctx, nil, false); err != nil {
		return "", err
	}
	if addr, ok := c.knownAddress(broker); ok {
		return addr, nil
	}
	return "", fmt.Errorf("find broker %d: %w", broker, kerr.BrokerNotAvailable)
}

func (c *Cluster) knownAddress(broker int32) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	addr, ok := c.brokers[broker]
	return addr, ok
}
