package replica

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// TopicSpec is a topic to be created.
type TopicSpec struct {
	Name string
	// Partitions is how many; -1: num.partitions. ReplicationFactor -1:
	// default.replication.factor. Both are -1 with an Assignment.
	Partitions        int32
	ReplicationFactor int16
	Assignment        [][]int32          // replicas by partition, the first one leads; nil: ours to choose
	Configs           map[string]*string // what differs from the brokers' settings
}

// CreateTopic makes a topic with a new random id. With validateOnly it only
// tells what would come out, with the zero id.
func (c *Controller) CreateTopic(ctx context.Context, spec TopicSpec, validateOnly bool) (*Topic, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	image := c.Image()
	if err := ValidateTopicName(spec.Name); err != nil {
		return nil, err
	}
	if image.Topic(spec.Name) != nil {
		return nil, refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", spec.Name)
	}
	if other, ok := image.collisions[collisionKey(spec.Name)]; ok {
		return nil, refuse(kerr.InvalidTopicException, "Topic '%s' collides with existing topic: %s", spec.Name, other)
	}
	configs, err := topicOverrides(spec.Configs)
	if err != nil {
		return nil, err
	}
	if err := validateTogether(configs, image.Settings(c.static, AnyBroker)); err != nil {
		return nil, err
	}
	partitions, err := c.place(spec, image)
	if err != nil {
		return nil, err
	}
	r := record{kind: topicCreated, name: strings.Clone(spec.Name), partitions: partitions, configs: configs}
	if validateOnly {
		return &Topic{Name: r.name, Internal: Internal(r.name), Partitions: r.partitions, Configs: r.configs}, nil
	}
	for r.id == (ID{}) || image.byID[r.id] != nil {
		r.id = NewID()
	}
	image, err = c.commit(ctx, r)
	if err != nil {
		return nil, err
	}
	return image.Topic(r.name), nil
}

// place decides who keeps the partitions of a new topic.
func (c *Controller) place(spec TopicSpec, image *Image) ([]Partition, error) {
	if spec.Assignment != nil {
		if spec.ReplicationFactor != -1 {
			return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
		}
		if spec.Partitions != -1 {
			return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
		}
		if err := room(len(spec.Assignment), image); err != nil {
			return nil, err
		}
		return c.assigned(spec.Assignment)
	}
	settings := image.Settings(c.static, AnyBroker)
	count, factor := spec.Partitions, int32(spec.ReplicationFactor)
	if count == -1 {
		count = settings.Int32("num.partitions")
	}
	if factor == -1 {
		factor = settings.Int32("default.replication.factor")
	}
	if factor <= 0 {
		return nil, refuse(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	}
	if count <= 0 {
		return nil, refuse(kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	if err := room(int(count), image); err != nil {
		return nil, err
	}
	return c.spread(int(count), int(factor), image.partitions)
}

// room refuses what would grow without bound.
func room(count int, image *Image) error {
	if count > maxPartitionsPerRequest {
		return refuse(kerr.PolicyViolation, "Excessively large number of partitions per request: %d, the limit is %d.", count, maxPartitionsPerRequest)
	}
	if image.partitions+count > maxPartitions {
		return refuse(kerr.PolicyViolation, "The cluster would have %d partitions, the limit is %d.", image.partitions+count, maxPartitions)
	}
	return nil
}

// spread places partitions round robin over the brokers, beginning where the
// cluster's partition count stands.
func (c *Controller) spread(count, factor, start int) ([]Partition, error) {
	if factor > len(c.brokers) {
		return nil, refuse(kerr.InvalidReplicationFactor,
			"Unable to replicate the partition %d time(s): The target replication factor of %d cannot be reached because only %d broker(s) are registered.",
			factor, factor, len(c.brokers))
	}
	out := make([]Partition, count)
	for i := range out {
		replicas := make([]int32, factor)
		for j := range replicas {
			replicas[j] = c.brokers[(start+i+j)%len(c.brokers)]
		}
		out[i] = Partition{Leader: replicas[0], Replicas: replicas, ISR: replicas}
	}
	return out, nil
}

// assigned checks replicas that the client chose.
func (c *Controller) assigned(assignment [][]int32) ([]Partition, error) {
	if len(assignment) == 0 {
		return nil, refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment is empty.")
	}
	out := make([]Partition, len(assignment))
	for i, replicas := range assignment {
		if len(replicas) == 0 {
			return nil, refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
		}
		if len(replicas) != len(assignment[0]) {
			return nil, refuse(kerr.InvalidReplicaAssignment,
				"The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).",
				len(replicas), len(assignment[0]))
		}
		for j, b := range replicas {
			if !slices.Contains(c.brokers, b) {
				return nil, refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", b)
			}
			if slices.Contains(replicas[:j], b) {
				return nil, refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", b)
			}
		}
		own := slices.Clone(replicas)
		out[i] = Partition{Leader: own[0], Replicas: own, ISR: own}
	}
	return out, nil
}

// DeleteTopic removes a topic and returns what it was.
func (c *Controller) DeleteTopic(ctx context.Context, name string) (*Topic, error) {
	return c.delete(ctx, func(m *Image) *Topic { return m.Topic(name) }, kerr.UnknownTopicOrPartition)
}

// DeleteTopicByID is DeleteTopic for a client that knows the id only.
func (c *Controller) DeleteTopicByID(ctx context.Context, id ID) (*Topic, error) {
	return c.delete(ctx, func(m *Image) *Topic { return m.TopicByID(id) }, kerr.UnknownTopicID)
}

func (c *Controller) delete(ctx context.Context, find func(*Image) *Topic, missing *kerr.Error) (*Topic, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := find(c.Image())
	if t == nil {
		return nil, refuse(missing, "%s", missing.Description)
	}
	if _, err := c.commit(ctx, record{kind: topicDeleted, id: t.ID}); err != nil {
		return nil, err
	}
	return t, nil
}

// CreatePartitions lets a topic grow to count partitions. assignment has the
// replicas of the new ones; nil: ours to choose. With validateOnly it only
// tells what would come out.
func (c *Controller) CreatePartitions(ctx context.Context, name string, count int32, assignment [][]int32, validateOnly bool) (*Topic, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	image := c.Image()
	t := image.Topic(name)
	if t == nil {
		return nil, refuse(kerr.UnknownTopicOrPartition, "The topic '%s' does not exist.", name)
	}
	have := len(t.Partitions)
	switch {
	case int(count) == have:
		return nil, refuse(kerr.InvalidPartitions, "Topic already has %d partition(s).", have)
	case int(count) < have:
		return nil, refuse(kerr.InvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", name, have, count)
	case assignment != nil && len(assignment) != int(count)-have:
		return nil, refuse(kerr.InvalidReplicaAssignment,
			"Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", int(count)-have, len(assignment))
	}
	if err := room(int(count)-have, image); err != nil {
		return nil, err
	}
	var added []Partition
	var err error
	if assignment != nil {
		added, err = c.assigned(assignment)
	} else {
		added, err = c.spread(int(count)-have, len(t.Partitions[0].Replicas), image.partitions)
	}
	if err != nil {
		return nil, err
	}
	if validateOnly {
		grown := *t
		grown.Partitions = slices.Concat(t.Partitions, added)
		return &grown, nil
	}
	image, err = c.commit(ctx, record{kind: partitionsAdded, id: t.ID, partitions: added})
	if err != nil {
		return nil, err
	}
	return image.Topic(t.Name), nil
}

// topicOverrides checks the settings that a new topic brings.
func topicOverrides(in map[string]*string) (map[string]string, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(in))
	for _, name := range slices.Sorted(maps.Keys(in)) {
		v := in[name]
		if v == nil {
			return nil, refuse(kerr.InvalidConfig, "Null value not supported for topic configs: %s", name)
		}
		if err := ValidateTopicConfig(name, *v); err != nil {
			return nil, err
		}
		out[strings.Clone(name)] = strings.Clone(*v)
	}
	return out, nil
}
