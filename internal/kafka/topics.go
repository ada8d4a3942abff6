package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	adminTimeout = 20_000 // milliseconds that the controller may take
	// visibleWithin is how long a new topic may take to have leaders that all
	// brokers know of, before CreateTopic returns anyway.
	visibleWithin  = 5 * time.Second
	describeAtOnce = 500 // topics per request
)

// ConfigEntry is one setting of a topic.
type ConfigEntry struct {
	Value     string // empty for a sensitive one
	Source    int8   // kmsg.ConfigSource; 0 when the broker does not say
	Default   bool   // not set on the topic itself
	ReadOnly  bool
	Sensitive bool
}

// TopicConfigs describes all settings of topics. When some topics fail, the
// error names each and the rest is returned with it.
func (c *Cluster) TopicConfigs(ctx context.Context, topics []string) (map[string]map[string]ConfigEntry, error) {
	all := make(map[string]map[string]ConfigEntry, len(topics))
	var failed []error
	for some := range slices.Chunk(topics, describeAtOnce) {
		req := kmsg.NewPtrDescribeConfigsRequest()
		for _, name := range some {
			r := kmsg.NewDescribeConfigsRequestResource()
			r.ResourceType = kmsg.ConfigResourceTypeTopic
			r.ResourceName = name
			req.Resources = append(req.Resources, r)
		}
		resp, err := as[*kmsg.DescribeConfigsResponse](c.anyBroker(ctx, req))
		if err != nil {
			return all, c.errorf(errors.Join(append(failed, err)...), "describe configs of %d topics", len(topics))
		}
		for _, r := range resp.Resources {
			if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
				failed = append(failed, c.errorf(explained(err, r.ErrorMessage), "describe configs of topic %s", r.ResourceName))
				continue
			}
			entries := make(map[string]ConfigEntry, len(r.Configs))
			for _, e := range r.Configs {
				entry := ConfigEntry{Source: int8(e.Source), Default: e.IsDefault, ReadOnly: e.ReadOnly, Sensitive: e.IsSensitive}
				if resp.GetVersion() > 0 {
					entry.Default = e.Source != kmsg.ConfigSourceDynamicTopicConfig
				}
				if e.Value != nil {
					entry.Value = *e.Value
				}
				entries[e.Name] = entry
			}
			all[r.ResourceName] = entries
		}
	}
	return all, errors.Join(failed...)
}

// CreateTopic makes a topic and waits a few seconds until its partitions have
// leaders. replication -1 is the cluster's default. A topic that is there
// already is kerr.TopicAlreadyExists; that is also what a try whose answer was
// lost leads to.
func (c *Cluster) CreateTopic(ctx context.Context, name string, partitions int32, replication int16, configs map[string]string) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = adminTimeout
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, replication
	for _, key := range slices.Sorted(maps.Keys(configs)) {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = key, new(configs[key])
		t.Configs = append(t.Configs, config)
	}
	req.Topics = append(req.Topics, t)
	resp, err := as[*kmsg.CreateTopicsResponse](c.toController(ctx, req))
	if err != nil {
		return c.errorf(err, "create topic %s", name)
	}
	err = errors.New("the response lacks it")
	for _, r := range resp.Topics {
		if r.Topic == name {
			err = explained(kerr.ErrorForCode(r.ErrorCode), r.ErrorMessage)
		}
	}
	if err != nil {
		return c.errorf(err, "create topic %s", name)
	}
	return c.awaitTopic(ctx, name, partitions)
}

// awaitTopic waits until a topic has leaders. That it has none yet is no error:
// whoever uses it next waits too.
func (c *Cluster) awaitTopic(ctx context.Context, name string, partitions int32) error {
	c.forgetTopic(name)
	var pause backoff
	for start := time.Now(); time.Since(start) < visibleWithin; {
		m, err := c.fetchMetadata(ctx, []string{name}, false)
		if err != nil {
			return c.errorf(err, "wait for topic %s", name)
		}
		if t := m.Topics[name]; t != nil && t.Err == nil && len(t.Partitions) >= int(partitions) &&
			!slices.ContainsFunc(t.Partitions, func(p Partition) bool { return p.Leader < 0 || p.Err != nil }) {
			return nil
		}
		if err := pause.wait(ctx); err != nil {
			return c.errorf(err, "wait for topic %s", name)
		}
	}
	return nil
}

// CreatePartitions grows a topic to count partitions. A topic that has as many
// or more is kerr.InvalidPartitions.
func (c *Cluster) CreatePartitions(ctx context.Context, topic string, count int32) error {
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.TimeoutMillis = adminTimeout
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = topic, count
	req.Topics = append(req.Topics, t)
	resp, err := as[*kmsg.CreatePartitionsResponse](c.toController(ctx, req))
	if err != nil {
		return c.errorf(err, "create partitions of topic %s", topic)
	}
	err = errors.New("the response lacks it")
	for _, r := range resp.Topics {
		if r.Topic == topic {
			err = explained(kerr.ErrorForCode(r.ErrorCode), r.ErrorMessage)
		}
	}
	if err != nil {
		return c.errorf(err, "create partitions of topic %s up to %d", topic, count)
	}
	return c.awaitTopic(ctx, topic, count)
}

// AlterTopicConfigs sets some settings of a topic and returns others to their
// default; the rest stays (KIP-339, Kafka 2.3).
func (c *Cluster) AlterTopicConfigs(ctx context.Context, topic string, set map[string]string, remove []string) error {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	for _, key := range slices.Sorted(maps.Keys(set)) {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Op, config.Value = key, kmsg.IncrementalAlterConfigOpSet, new(set[key])
		r.Configs = append(r.Configs, config)
	}
	for _, key := range remove {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Op = key, kmsg.IncrementalAlterConfigOpDelete
		r.Configs = append(r.Configs, config)
	}
	req.Resources = append(req.Resources, r)
	resp, err := as[*kmsg.IncrementalAlterConfigsResponse](c.toController(ctx, req))
	if err == nil {
		err = errors.New("the response lacks it")
		for _, r := range resp.Resources {
			if r.ResourceName == topic {
				err = explained(kerr.ErrorForCode(r.ErrorCode), r.ErrorMessage)
			}
		}
	}
	if err != nil {
		return c.errorf(err, "alter configs of topic %s", topic)
	}
	return nil
}

// EnsureInternalTopic makes a topic of ours unless it is there, on three
// brokers where there are as many; then two must be in sync for a write. One
// that is there with another number of partitions is a *PartitionsError; its
// settings are left as they are.
func (c *Cluster) EnsureInternalTopic(ctx context.Context, name string, partitions int32, configs map[string]string) error {
	m, err := c.fetchMetadata(ctx, []string{name}, false)
	if err != nil {
		return c.errorf(err, "look for topic %s", name)
	}
	if t := m.Topics[name]; t != nil && t.Err == nil {
		return c.checkPartitions(t, partitions)
	} else if t != nil && !unknownTopic(t.Err) {
		return c.errorf(t.Err, "look for topic %s", name)
	}
	const replicas = 3
	replication := min(replicas, len(m.Brokers))
	configs = maps.Clone(configs)
	if configs == nil {
		configs = make(map[string]string)
	}
	if _, set := configs["min.insync.replicas"]; !set && replication == replicas {
		configs["min.insync.replicas"] = strconv.Itoa(replicas - 1)
	}
	err = c.CreateTopic(ctx, name, partitions, int16(replication), configs)
	if !errors.Is(err, kerr.TopicAlreadyExists) {
		return err
	}
	// Another instance was quicker.
	if err := c.awaitTopic(ctx, name, partitions); err != nil {
		return err
	}
	t, err := c.topic(ctx, name)
	if err != nil {
		return c.errorf(err, "look for topic %s", name)
	}
	return c.checkPartitions(t, partitions)
}

func (c *Cluster) checkPartitions(t *Topic, want int32) error {
	if len(t.Partitions) == int(want) {
		return nil
	}
	return c.errorf(&PartitionsError{Have: len(t.Partitions), Want: int(want)}, "use internal topic %s", t.Name)
}

// PartitionsError says that an internal topic has another number of partitions
// than it must have.
type PartitionsError struct{ Have, Want int }

func (e *PartitionsError) Error() string {
	return fmt.Sprintf("it has %d partitions, %d are needed: delete it or give it back its partitions", e.Have, e.Want)
}
