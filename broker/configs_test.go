package broker_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

func describeConfigs(c *client, version int16, kind kmsg.ConfigResourceType, name string, keys ...string) kmsg.DescribeConfigsResponseResource {
	c.t.Helper()
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.IncludeSynonyms, req.IncludeDocumentation = true, true
	rr := kmsg.NewDescribeConfigsRequestResource()
	rr.ResourceType, rr.ResourceName, rr.ConfigNames = kind, name, keys
	req.Resources = append(req.Resources, rr)
	return ask[*kmsg.DescribeConfigsResponse](c, version, req).Resources[0]
}

func TestDescribeConfigs(t *testing.T) {
	c := dial(t, start(t, setting("num.partitions", "3")))
	createTopic(c, "t", 1, "retention.ms", "777")
	for version := int16(1); version <= 4; version++ {
		r := describeConfigs(c, version, kmsg.ConfigResourceTypeTopic, "t")
		if len(r.Configs) < 25 {
			t.Errorf("version %d: %d settings of a topic", version, len(r.Configs))
		}
		r = describeConfigs(c, version, kmsg.ConfigResourceTypeTopic, "t", "retention.ms")
		if len(r.Configs) != 1 || *r.Configs[0].Value != "777" || r.Configs[0].Source != kmsg.ConfigSourceDynamicTopicConfig || len(r.Configs[0].ConfigSynonyms) < 2 {
			t.Errorf("version %d: %+v", version, r.Configs)
		}
		r = describeConfigs(c, version, kmsg.ConfigResourceTypeBroker, "1", "num.partitions")
		if len(r.Configs) != 1 || *r.Configs[0].Value != "3" || r.Configs[0].Source != kmsg.ConfigSourceStaticBrokerConfig {
			t.Errorf("version %d: %+v", version, r.Configs)
		}
	}
	wantCode(t, "a missing topic", describeConfigs(c, 4, kmsg.ConfigResourceTypeTopic, "u").ErrorCode, kerr.UnknownTopicOrPartition)
	wantCode(t, "another broker", describeConfigs(c, 4, kmsg.ConfigResourceTypeBroker, "9").ErrorCode, kerr.InvalidRequest)
	wantCode(t, "no number", describeConfigs(c, 4, kmsg.ConfigResourceTypeBroker, "x").ErrorCode, kerr.InvalidRequest)
	wantCode(t, "all brokers", describeConfigs(c, 4, kmsg.ConfigResourceTypeBroker, "").ErrorCode, nil)
	wantCode(t, "a type of the future", describeConfigs(c, 4, 99, "x").ErrorCode, kerr.InvalidRequest)
}

func TestAlterConfigs(t *testing.T) {
	c := dial(t, start(t))
	createTopic(c, "t", 1, "retention.ms", "777")
	incremental := func(kind kmsg.ConfigResourceType, resource, name string, op kmsg.IncrementalAlterConfigOp, value string) int16 {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kind, resource
		rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		rc.Name, rc.Op, rc.Value = name, op, &value
		rr.Configs = append(rr.Configs, rc)
		req.Resources = append(req.Resources, rr)
		return ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, req).Resources[0].ErrorCode
	}
	topic, broker := kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker
	set, unset := kmsg.IncrementalAlterConfigOpSet, kmsg.IncrementalAlterConfigOpDelete
	wantCode(t, "a small limit", incremental(topic, "t", "max.message.bytes", set, "100"), nil)
	wantCode(t, "a batch above it", produce(c, "t", batch(t, wire.CodecNone, string(make([]byte, 200)))).ErrorCode, kerr.MessageTooLarge)
	wantCode(t, "back to the default", incremental(topic, "t", "max.message.bytes", unset, ""), nil)
	wantCode(t, "the batch", produce(c, "t", batch(t, wire.CodecNone, string(make([]byte, 200)))).ErrorCode, nil)
	wantCode(t, "nonsense", incremental(topic, "t", "max.message.bytes", set, "many"), kerr.InvalidConfig)
	wantCode(t, "a missing topic", incremental(topic, "u", "max.message.bytes", set, "100"), kerr.UnknownTopicOrPartition)
	wantCode(t, "a limit for all topics", incremental(broker, "", "message.max.bytes", set, "100"), nil)
	wantCode(t, "a batch above that", produce(c, "t", batch(t, wire.CodecNone, string(make([]byte, 200)))).ErrorCode, kerr.MessageTooLarge)
	wantCode(t, "a setting of the file", incremental(broker, "1", "socket.request.max.bytes", set, "100"), kerr.InvalidRequest)

	value := "delete"
	for version := int16(0); version <= 2; version++ {
		req := kmsg.NewPtrAlterConfigsRequest()
		rr := kmsg.NewAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = topic, "t"
		rr.Configs = []kmsg.AlterConfigsRequestResourceConfig{{Name: "cleanup.policy", Value: &value}}
		req.Resources = append(req.Resources, rr)
		wantCode(t, "replace", ask[*kmsg.AlterConfigsResponse](c, version, req).Resources[0].ErrorCode, nil)
		req.Resources = append(req.Resources, rr)
		wantCode(t, "the same twice", ask[*kmsg.AlterConfigsResponse](c, version, req).Resources[0].ErrorCode, kerr.InvalidRequest)
	}
	if r := describeConfigs(c, 4, topic, "t", "retention.ms"); r.Configs[0].Source == kmsg.ConfigSourceDynamicTopicConfig {
		t.Error("replacing the settings left retention.ms in force")
	}
}
