package replica

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Op is what IncrementalAlterConfigs does to a setting, with Kafka's number.
type Op int8

// The operations. OpAppend and OpSubtract are for lists.
const (
	OpSet      Op = 0
	OpDelete   Op = 1
	OpAppend   Op = 2
	OpSubtract Op = 3
)

// ConfigChange is one change of one setting. Value is not used by OpDelete.
type ConfigChange struct {
	Name  string
	Op    Op
	Value *string
}

// AlterTopicConfigs changes the settings of a topic, all or none. With
// validateOnly it only tells whether it could.
func (c *Controller) AlterTopicConfigs(ctx context.Context, topic string, changes []ConfigChange, validateOnly bool) error {
	return c.alterTopic(ctx, topic, validateOnly, func(t *Topic, s Settings) (map[string]string, error) {
		table := topicTable()
		return alter(t.Configs, changes, func(name string) (*Definition, string, error) {
			d := find(table, name)
			if d == nil {
				return nil, "", refuse(kerr.InvalidConfig, "Unknown topic config name: %s", name)
			}
			inherited, _ := s.resolveTopic(d, nil)
			return d, inherited, nil
		}, ValidateTopicConfig)
	})
}

// ReplaceTopicConfigs makes these the settings of a topic, and no others
// (AlterConfigs, the old way). A null value is refused.
func (c *Controller) ReplaceTopicConfigs(ctx context.Context, topic string, configs map[string]*string, validateOnly bool) error {
	return c.alterTopic(ctx, topic, validateOnly, func(*Topic, Settings) (map[string]string, error) {
		return topicOverrides(configs)
	})
}

func (c *Controller) alterTopic(ctx context.Context, topic string, validateOnly bool, change func(*Topic, Settings) (map[string]string, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	image := c.Image()
	t := image.Topic(topic)
	if t == nil {
		return refuse(kerr.UnknownTopicOrPartition, "The topic '%s' does not exist.", topic)
	}
	s := image.Settings(c.static, AnyBroker)
	configs, err := change(t, s)
	if err != nil {
		return err
	}
	if err := validateTogether(configs, s); err != nil {
		return err
	}
	if validateOnly || maps.Equal(configs, t.Configs) {
		return nil
	}
	_, err = c.commit(ctx, record{kind: topicConfigured, id: t.ID, configs: configs})
	return err
}

// AlterBrokerConfigs changes dynamic settings of one broker, or of AnyBroker,
// all or none. A setting that can only stand in the configuration file is
// refused with INVALID_REQUEST.
func (c *Controller) AlterBrokerConfigs(ctx context.Context, broker int32, changes []ConfigChange, validateOnly bool) error {
	return c.alterBroker(ctx, broker, validateOnly, func(image *Image) (map[string]string, error) {
		table, s := brokerTable(), image.Settings(c.static, broker)
		return alter(image.BrokerConfigs(broker), changes, func(name string) (*Definition, string, error) {
			d := find(table, name)
			if d == nil {
				return nil, "", refuse(kerr.InvalidConfig, "Unknown broker config name: %s", name)
			}
			inherited, _ := s.resolve(d)
			return d, inherited, nil
		}, validateDynamic)
	})
}

// ReplaceBrokerConfigs makes these the dynamic settings of a broker, or of
// AnyBroker, and no others (AlterConfigs, the old way).
func (c *Controller) ReplaceBrokerConfigs(ctx context.Context, broker int32, configs map[string]*string, validateOnly bool) error {
	return c.alterBroker(ctx, broker, validateOnly, func(*Image) (map[string]string, error) {
		out := make(map[string]string, len(configs))
		for _, name := range slices.Sorted(maps.Keys(configs)) {
			if configs[name] == nil {
				return nil, refuse(kerr.InvalidConfig, "Null value not supported for broker configs: %s", name)
			}
			if err := validateDynamic(name, *configs[name]); err != nil {
				return nil, err
			}
			out[strings.Clone(name)] = strings.Clone(*configs[name])
		}
		return out, nil
	})
}

func (c *Controller) alterBroker(ctx context.Context, broker int32, validateOnly bool, change func(*Image) (map[string]string, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if broker != AnyBroker && !slices.Contains(c.brokers, broker) {
		return refuse(kerr.InvalidRequest, "No such broker: %d", broker)
	}
	image := c.Image()
	configs, err := change(image)
	if err != nil {
		return err
	}
	if validateOnly || maps.Equal(configs, image.BrokerConfigs(broker)) {
		return nil
	}
	_, err = c.commit(ctx, record{kind: brokerConfigured, broker: broker, configs: configs})
	return err
}

func validateDynamic(name, value string) error {
	if err := ValidateBrokerConfig(name, value); err != nil {
		return err
	}
	if !find(brokerTable(), name).Dynamic {
		return refuse(kerr.InvalidRequest, "Cannot update these configs dynamically: Set(%s)", name)
	}
	return nil
}

// alter is the settings after the changes. define finds a setting and what it
// would be without an own value.
func alter(current map[string]string, changes []ConfigChange,
	define func(name string) (d *Definition, inherited string, err error), validate func(name, value string) error,
) (map[string]string, error) {
	out := maps.Clone(current)
	if out == nil {
		out = make(map[string]string)
	}
	seen := make(map[string]bool)
	for _, change := range changes {
		if seen[change.Name] {
			return nil, refuse(kerr.InvalidRequest, "Error due to duplicate config keys : %s", change.Name)
		}
		seen[change.Name] = true
		if change.Op == OpDelete {
			if _, _, err := define(change.Name); err != nil {
				if _, was := out[change.Name]; !was { // a setting of the past may go
					return nil, err
				}
			}
			delete(out, change.Name)
			continue
		}
		if change.Value == nil {
			return nil, refuse(kerr.InvalidRequest, "Null value not supported for : %s", change.Name)
		}
		d, inherited, err := define(change.Name)
		if err != nil {
			return nil, err
		}
		value := *change.Value
		if change.Op == OpAppend || change.Op == OpSubtract {
			if d.Type != List {
				return nil, refuse(kerr.InvalidConfig, "Can't %s to key %s because its type is not LIST.",
					map[Op]string{OpAppend: "APPEND", OpSubtract: "SUBTRACT"}[change.Op], change.Name)
			}
			if own, ok := out[change.Name]; ok {
				inherited = own
			}
			value = editList(inherited, value, change.Op)
		} else if change.Op != OpSet {
			return nil, refuse(kerr.InvalidRequest, "Unknown operation %d for config %s", change.Op, change.Name)
		}
		if err := validate(change.Name, value); err != nil {
			return nil, err
		}
		out[strings.Clone(change.Name)] = strings.Clone(value)
	}
	return out, nil
}

// editList adds items that are missing, or takes items away.
func editList(current, items string, op Op) string {
	list := splitList(current)
	for _, item := range splitList(items) {
		at := slices.Index(list, item)
		switch {
		case op == OpAppend && at < 0:
			list = append(list, item)
		case op == OpSubtract && at >= 0:
			list = slices.Delete(list, at, at+1)
		}
	}
	return strings.Join(list, ",")
}
