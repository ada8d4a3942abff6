package broker

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/replica"
	"kmirror/broker/storage"
)

// Kafka's default for the partitions of its own topics is 50, which is a lot of
// files for one node.
const (
	offsetsPartitions     = 16 // offsets.topic.num.partitions
	transactionPartitions = 16 // transaction.state.log.num.partitions
)

// staticSettings are the node's configuration file, as Kafka's tools see it.
func (n *Node) staticSettings(cfg Config) map[string]string {
	static := map[string]string{
		"offsets.topic.num.partitions":         strconv.Itoa(offsetsPartitions),
		"transaction.state.log.num.partitions": strconv.Itoa(transactionPartitions),
	}
	maps.Copy(static, cfg.Settings)
	id := strconv.Itoa(int(n.id))
	static["node.id"], static["broker.id"] = id, id
	static["log.dirs"] = n.dir
	static["listeners"] = "PLAINTEXT://" + cfg.Listen
	static["advertised.listeners"] = "PLAINTEXT://" + n.Addr()
	return static
}

// autoCreate reports whether topics may be made by asking for them.
func (n *Node) autoCreate() bool {
	return n.controller.Settings(n.id).Bool("auto.create.topics.enable")
}

// logConfig is what holds for a topic's logs.
func (n *Node) logConfig(image *replica.Image, t *replica.Topic) storage.LogConfig {
	return replica.Effective(t.Configs, image.Settings(n.static, n.id)).LogConfig
}

// settingsDiffer reports whether dynamic settings of a broker changed between images.
func settingsDiffer(old, current *replica.Image, broker int32) bool {
	return !maps.Equal(old.BrokerConfigs(broker), current.BrokerConfigs(broker)) ||
		!maps.Equal(old.BrokerConfigs(replica.AnyBroker), current.BrokerConfigs(replica.AnyBroker))
}

// createdConfigs are a topic's settings for the response to CreateTopics.
func (n *Node) createdConfigs(t *replica.Topic) []kmsg.CreateTopicsResponseTopicConfig {
	entries := replica.DescribeTopic(t.Configs, n.controller.Settings(n.id), nil)
	out := make([]kmsg.CreateTopicsResponseTopicConfig, 0, len(entries))
	for _, e := range entries {
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.Value, c.Source = e.Name, e.Value, int8(e.Source)
		out = append(out, c)
	}
	return out
}

// brokerResource reads the name of a broker resource; "" is all brokers.
func (n *Node) brokerResource(name string) (int32, error) {
	if name == "" {
		return replica.AnyBroker, nil
	}
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return 0, refuse(kerr.InvalidRequest, "Broker id must be an integer, but it is: "+name)
	}
	if int32(id) != n.id {
		return 0, refuse(kerr.InvalidRequest, fmt.Sprintf("Unexpected broker id, expected %d or empty string, but received %s", n.id, name))
	}
	return int32(id), nil
}

// unknownResource refuses a type of configuration resource.
func unknownResource(t kmsg.ConfigResourceType) error {
	switch t {
	case kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeClientMetrics, kmsg.ConfigResourceTypeGroupConfig:
		return refuse(kerr.InvalidRequest, "Resource type "+t.String()+" is not offered by this broker.")
	default:
		return refuse(kerr.InvalidRequest, fmt.Sprintf("Unsupported resource type: %d", t))
	}
}
