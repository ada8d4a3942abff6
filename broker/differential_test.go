package broker_test

import (
	"fmt"
	"net"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// The same requests go to kfake and to us: the error codes must be the same,
// entry by entry. Where kfake is known to differ from Kafka the request is not
// in the table: invalid topic names and config values, growing a topic to what
// it is, and members that the group does not know.
func TestSameErrorsAsKfake(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(1))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	nc, err := net.Dial("tcp", fake.ListenAddrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	theirs := &client{Conn: nc, t: t, id: "test-client"}
	ours := dial(t, start(t))

	name := func(s string) *string { return &s }
	create := func(topic string, partitions int32, replicas int16) kmsg.Request {
		req := kmsg.NewPtrCreateTopicsRequest()
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, partitions, replicas
		req.Topics = append(req.Topics, rt)
		return req
	}
	remove := func(topics ...string) kmsg.Request {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.TopicNames = topics
		return req
	}
	grow := func(topic string, count int32) kmsg.Request {
		req := kmsg.NewPtrCreatePartitionsRequest()
		rt := kmsg.NewCreatePartitionsRequestTopic()
		rt.Topic, rt.Count = topic, count
		req.Topics = append(req.Topics, rt)
		return req
	}
	find := func(topic string, create bool) kmsg.Request {
		req := kmsg.NewPtrMetadataRequest()
		req.AllowAutoTopicCreation = create
		req.Topics = []kmsg.MetadataRequestTopic{{Topic: name(topic)}}
		return req
	}
	list := func(topic string, partition int32, timestamp int64) kmsg.Request {
		req := kmsg.NewPtrListOffsetsRequest()
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp = partition, timestamp
		req.Topics = []kmsg.ListOffsetsRequestTopic{{Topic: topic, Partitions: []kmsg.ListOffsetsRequestTopicPartition{rp}}}
		return req
	}
	describe := func(kind kmsg.ConfigResourceType, resource string) kmsg.Request {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kind, ResourceName: resource}}
		return req
	}
	alter := func(topic, key, value string) kmsg.Request {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{
			ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: topic,
			Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: key, Value: &value}},
		}}
		return req
	}
	join := kmsg.NewPtrJoinGroupRequest()
	join.Group, join.MemberID, join.SessionTimeoutMillis, join.ProtocolType = "g", "nobody", 10_000, "consumer"
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
	impatient := *join
	impatient.SessionTimeoutMillis = 1
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group = "simple"
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1}}}}
	committed := kmsg.NewPtrOffsetFetchRequest()
	committed.Group = "simple"
	committed.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{0, 1}}}
	deleteGroups := kmsg.NewPtrDeleteGroupsRequest()
	deleteGroups.Groups = []string{"simple", "missing"}
	records := batch(t, wire.CodecNone, "a", "b")

	for i, step := range []struct {
		version int16
		req     kmsg.Request
	}{
		{9, find("t", false)},
		{5, create("t", 2, 1)},
		{5, create("t", 2, 1)},
		{5, create("u", 0, 1)},
		{5, create("u", 1, 9)},
		{9, find("t", false)},
		{2, grow("t", 1)},
		{2, grow("missing", 3)},
		{9, produceRequest("t", [16]byte{}, 0, -1, records)},
		{9, produceRequest("t", [16]byte{}, 9, -1, records)},
		{9, produceRequest("missing", [16]byte{}, 0, -1, records)},
		{9, produceRequest("t", [16]byte{}, 0, 5, records)},
		{13, produceRequest("", [16]byte{1}, 0, -1, records)},
		{12, fetchRequest("t", [16]byte{}, 0)},
		{12, fetchRequest("t", [16]byte{}, 99)},
		{12, fetchRequest("missing", [16]byte{}, 0)},
		{13, fetchRequest("", [16]byte{1}, 0)},
		{7, list("t", 0, -1)},
		{7, list("t", 0, -2)},
		{7, list("t", 9, -1)},
		{7, list("missing", 0, -1)},
		{4, describe(kmsg.ConfigResourceTypeTopic, "t")},
		{4, describe(kmsg.ConfigResourceTypeTopic, "missing")},
		{1, alter("t", "retention.ms", "5")},
		{1, alter("missing", "retention.ms", "5")},
		{7, join},
		{7, &impatient},
		{7, commit},
		{7, committed},
		{2, deleteGroups},
		{4, remove("t", "missing")},
		{9, find("t", false)},
	} {
		got, want := errorCodes(reflect.ValueOf(exchange(ours, step.version, step.req)), ""), errorCodes(reflect.ValueOf(exchange(theirs, step.version, step.req)), "")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("step %d, %s version %d, kfake (-) and we (+) differ:\n%s", i, kmsg.NameForKey(step.req.Key()), step.version, diff)
		}
	}
}

func exchange(c *client, version int16, req kmsg.Request) kmsg.Response {
	c.send(version, req)
	resp := req.ResponseKind()
	c.receive(c.correlation, version, resp)
	return resp
}

// errorCodes are all error codes of a response, with the way to each.
func errorCodes(v reflect.Value, path string) map[string]int16 {
	out := make(map[string]int16)
	var walk func(reflect.Value, string)
	walk = func(v reflect.Value, path string) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem(), path)
			}
		case reflect.Slice:
			if v.Type().Elem().Kind() == reflect.Struct {
				for i := range v.Len() {
					walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
				}
			}
		case reflect.Struct:
			for i := range v.NumField() {
				switch f := v.Type().Field(i); {
				case f.Name == "ErrorCode":
					out[path] = int16(v.Field(i).Int())
				case f.IsExported() && f.Name != "Configs":
					walk(v.Field(i), path+"."+f.Name)
				}
			}
		default: // a leaf
		}
	}
	walk(v, path)
	return out
}
