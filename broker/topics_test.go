package broker_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

func TestMetadataInEveryVersion(t *testing.T) {
	node := start(t)
	c := dial(t, node)
	id := createTopic(c, "t", 2)
	createTopic(c, "u", 1)
	for version := int16(0); version <= 13; version++ {
		all := kmsg.NewPtrMetadataRequest()
		if version == 0 {
			all.Topics = []kmsg.MetadataRequestTopic{}
		}
		resp := ask[*kmsg.MetadataResponse](c, version, all)
		if len(resp.Topics) != 2 || len(resp.Brokers) != 1 || len(resp.Topics[0].Partitions) != 2 {
			t.Fatalf("version %d: %+v", version, resp)
		}
		p := resp.Topics[0].Partitions[1]
		if p.Leader != 1 || !slices.Equal(p.Replicas, []int32{1}) || !slices.Equal(p.ISR, []int32{1}) {
			t.Errorf("version %d: partition %+v", version, p)
		}
		if version >= 10 && resp.Topics[0].TopicID != id {
			t.Errorf("version %d: topic id %x", version, resp.Topics[0].TopicID)
		}
		if version >= 2 && *resp.ClusterID != node.ClusterID() {
			t.Errorf("version %d: cluster id %q", version, *resp.ClusterID)
		}
		if version >= 1 {
			none := kmsg.NewPtrMetadataRequest()
			none.Topics = []kmsg.MetadataRequestTopic{}
			if got := ask[*kmsg.MetadataResponse](c, version, none); len(got.Topics) != 0 {
				t.Errorf("version %d: %d topics for an empty list", version, len(got.Topics))
			}
		}
	}
	byID := kmsg.NewPtrMetadataRequest()
	for _, id := range [][16]byte{id, {1, 2, 3}} {
		rt := kmsg.NewMetadataRequestTopic()
		rt.TopicID = id
		byID.Topics = append(byID.Topics, rt)
	}
	resp := ask[*kmsg.MetadataResponse](c, 12, byID)
	if *resp.Topics[0].Topic != "t" {
		t.Errorf("topic by id: %+v", resp.Topics[0])
	}
	wantCode(t, "an unknown id", resp.Topics[1].ErrorCode, kerr.UnknownTopicID)
	resp = ask[*kmsg.MetadataResponse](c, 11, byID)
	wantCode(t, "an id before version 12", resp.Topics[0].ErrorCode, kerr.InvalidRequest)

	operations := kmsg.NewPtrMetadataRequest()
	operations.IncludeClusterAuthorizedOperations, operations.IncludeTopicAuthorizedOperations = true, true
	resp = ask[*kmsg.MetadataResponse](c, 10, operations)
	if resp.AuthorizedOperations != 8096 || resp.Topics[0].AuthorizedOperations != 3576 {
		t.Errorf("authorized operations %d and %d", resp.AuthorizedOperations, resp.Topics[0].AuthorizedOperations)
	}
}

func TestAutoCreation(t *testing.T) {
	ask1 := func(c *client, name string, allowed bool) int16 {
		req := kmsg.NewPtrMetadataRequest()
		req.AllowAutoTopicCreation = allowed
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = &name
		req.Topics = append(req.Topics, rt)
		return ask[*kmsg.MetadataResponse](c, 9, req).Topics[0].ErrorCode
	}
	c := dial(t, start(t, setting("num.partitions", "4")))
	wantCode(t, "without the client's wish", ask1(c, "t", false), kerr.UnknownTopicOrPartition)
	wantCode(t, "with it", ask1(c, "t", true), nil)
	if got := metadata(c, "t").Topics[0]; len(got.Partitions) != 4 {
		t.Errorf("%d partitions, want num.partitions", len(got.Partitions))
	}
	wantCode(t, "a name that cannot be", ask1(c, "a b", true), kerr.InvalidTopicException)
	wantCode(t, "a name that is too long", ask1(c, strings.Repeat("x", 250), true), kerr.InvalidTopicException)
	wantCode(t, "Kafka's own", ask1(c, "__consumer_offsets", true), nil)
	if got := metadata(c, "__consumer_offsets").Topics[0]; !got.IsInternal || len(got.Partitions) != 16 {
		t.Errorf("__consumer_offsets: internal %v, %d partitions", got.IsInternal, len(got.Partitions))
	}

	off := dial(t, start(t, setting("auto.create.topics.enable", "false")))
	wantCode(t, "with auto.create.topics.enable=false", ask1(off, "t", true), kerr.UnknownTopicOrPartition)
}

func TestTopicLife(t *testing.T) {
	c := dial(t, start(t))
	create := func(version int16, change func(*kmsg.CreateTopicsRequest)) []kmsg.CreateTopicsResponseTopic {
		req := kmsg.NewPtrCreateTopicsRequest()
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "t", 2, 1
		req.Topics = append(req.Topics, rt)
		change(req)
		return ask[*kmsg.CreateTopicsResponse](c, version, req).Topics
	}
	type request = *kmsg.CreateTopicsRequest
	value := "maybe"
	for _, tc := range []struct {
		name   string
		change func(request)
		want   *kerr.Error
	}{
		{"only looking", func(r request) { r.ValidateOnly = true }, nil},
		{"a bad name", func(r request) { r.Topics[0].Topic = "a/b" }, kerr.InvalidTopicException},
		{"no partitions", func(r request) { r.Topics[0].NumPartitions = 0 }, kerr.InvalidPartitions},
		{"three replicas on one broker", func(r request) { r.Topics[0].ReplicationFactor = 3 }, kerr.InvalidReplicationFactor},
		{"an unknown config", func(r request) {
			r.Topics[0].Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "no.such", Value: &value}}
		}, kerr.InvalidConfig},
		{"a bad value", func(r request) {
			r.Topics[0].Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "cleanup.policy", Value: &value}}
		}, kerr.InvalidConfig},
		{"Kafka's own", func(r request) { r.Topics[0].Topic = "__cluster_metadata" }, kerr.InvalidRequest},
		{"the same twice", func(r request) { r.Topics = append(r.Topics, r.Topics[0]) }, kerr.InvalidRequest},
		{"replicas as we say", func(r request) {
			r.Topics[0].NumPartitions, r.Topics[0].ReplicationFactor = -1, -1
			r.Topics[0].ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 1, Replicas: []int32{1}}, {Replicas: []int32{1}}}
			r.ValidateOnly = true
		}, nil},
		{"replicas on a broker that is not there", func(r request) {
			r.Topics[0].NumPartitions, r.Topics[0].ReplicationFactor = -1, -1
			r.Topics[0].ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Replicas: []int32{5}}}
		}, kerr.InvalidReplicaAssignment},
		{"at last", func(request) {}, nil},
		{"again", func(request) {}, kerr.TopicAlreadyExists},
	} {
		for version := int16(2); version <= 7; version++ {
			if tc.want == nil && version < 7 {
				continue
			}
			got := create(version, tc.change)
			if len(got) != 1 {
				t.Fatalf("%s: %d entries", tc.name, len(got))
			}
			wantCode(t, tc.name, got[0].ErrorCode, tc.want)
			if tc.want == nil && (got[0].NumPartitions != 2 || got[0].ReplicationFactor != 1 || len(got[0].Configs) < 20) {
				t.Errorf("%s: %+v", tc.name, got[0])
			}
		}
	}

	grow := func(topic string, count int32) int16 {
		req := kmsg.NewPtrCreatePartitionsRequest()
		rt := kmsg.NewCreatePartitionsRequestTopic()
		rt.Topic, rt.Count = topic, count
		req.Topics = append(req.Topics, rt)
		return ask[*kmsg.CreatePartitionsResponse](c, 3, req).Topics[0].ErrorCode
	}
	wantCode(t, "grow to what it is", grow("t", 2), kerr.InvalidPartitions)
	wantCode(t, "grow", grow("t", 5), nil)
	wantCode(t, "grow what is not there", grow("u", 5), kerr.UnknownTopicOrPartition)
	wantCode(t, "produce to a new partition", ask[*kmsg.ProduceResponse](c, 9,
		produceRequest("t", [16]byte{}, 4, -1, batch(t, wire.CodecNone, "v"))).Topics[0].Partitions[0].ErrorCode, nil)

	old := metadata(c, "t").Topics[0].TopicID
	del := func(version int16, name *string, id [16]byte) int16 {
		req := kmsg.NewPtrDeleteTopicsRequest()
		if name != nil {
			req.TopicNames = []string{*name}
		}
		req.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: name, TopicID: id}}
		return ask[*kmsg.DeleteTopicsResponse](c, version, req).Topics[0].ErrorCode
	}
	name, missing := "t", "missing"
	wantCode(t, "delete by name and id", del(6, &name, old), kerr.InvalidRequest)
	wantCode(t, "delete by neither", del(6, nil, [16]byte{}), kerr.InvalidRequest)
	wantCode(t, "delete what is not there", del(1, &missing, [16]byte{}), kerr.UnknownTopicOrPartition)
	wantCode(t, "delete an unknown id", del(6, nil, [16]byte{3}), kerr.UnknownTopicID)
	wantCode(t, "delete by id", del(6, nil, old), nil)
	if id := createTopic(c, "t", 1); id == old {
		t.Error("a new topic has the old one's id")
	}
	if p := fetch(c, "t", 0); p.HighWatermark != 0 {
		t.Errorf("the new topic begins with %d records", p.HighWatermark)
	}
	wantCode(t, "delete by name", del(4, &name, [16]byte{}), nil)
}

func TestTopicDeletionDisabled(t *testing.T) {
	c := dial(t, start(t, setting("delete.topic.enable", "false")))
	createTopic(c, "t", 1)
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TopicNames = []string{"t"}
	wantCode(t, "delete", ask[*kmsg.DeleteTopicsResponse](c, 4, req).Topics[0].ErrorCode, kerr.TopicDeletionDisabled)
}

func TestDescribeTopicPartitions(t *testing.T) {
	c := dial(t, start(t))
	createTopic(c, "a", 3)
	createTopic(c, "b", 4)
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = 2
	var seen []string
	for pages := 0; ; pages++ {
		resp := ask[*kmsg.DescribeTopicPartitionsResponse](c, 0, req)
		for _, topic := range resp.Topics {
			for _, p := range topic.Partitions {
				seen = append(seen, *topic.Topic+string('0'+p.Partition))
			}
		}
		if resp.NextCursor == nil || pages > 10 {
			break
		}
		req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: resp.NextCursor.Topic, Partition: resp.NextCursor.Partition}
	}
	if want := []string{"a0", "a1", "a2", "b0", "b1", "b2", "b3"}; !slices.Equal(seen, want) {
		t.Errorf("pages of two partitions gave %v, want %v", seen, want)
	}
	req = kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "missing"}}
	wantCode(t, "missing", ask[*kmsg.DescribeTopicPartitionsResponse](c, 0, req).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
	req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: "a", Partition: -1}
	wantCode(t, "a negative cursor", ask[*kmsg.DescribeTopicPartitionsResponse](c, 0, req).Topics[0].ErrorCode, kerr.InvalidRequest)
}

func TestDescribeClusterAndLogDirs(t *testing.T) {
	node := start(t)
	c := dial(t, node)
	createTopic(c, "t", 2)
	produce(c, "t", batch(t, wire.CodecNone, "v"))
	for version := int16(0); version <= 2; version++ {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.EndpointType = 1
		resp := ask[*kmsg.DescribeClusterResponse](c, version, req)
		if resp.ClusterID != node.ClusterID() || len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != 1 {
			t.Errorf("version %d: %+v", version, resp)
		}
		if req.EndpointType = 2; version >= 1 {
			wantCode(t, "controllers", ask[*kmsg.DescribeClusterResponse](c, version, req).ErrorCode, kerr.MismatchedEndpointType)
		}
	}
	for version := int16(1); version <= 4; version++ {
		resp := ask[*kmsg.DescribeLogDirsResponse](c, version, kmsg.NewPtrDescribeLogDirsRequest())
		topics := resp.Dirs[0].Topics
		if len(topics) != 1 || len(topics[0].Partitions) != 2 || topics[0].Partitions[0].Size == 0 || topics[0].Partitions[1].Size != 0 {
			t.Errorf("version %d: %+v", version, resp.Dirs)
		}
		if version >= 4 && resp.Dirs[0].TotalBytes <= 0 {
			t.Errorf("version %d: total bytes %d", version, resp.Dirs[0].TotalBytes)
		}
	}
}
