package broker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker"
	"kmirror/internal/wire"
)

// start runs a node until the test ends. Every change applies to its Config.
func start(t testing.TB, changes ...func(*broker.Config)) *broker.Node {
	t.Helper()
	return startIn(t, t.TempDir(), changes...).node
}

// running is a node that a test stops itself.
type running struct {
	node *broker.Node
	stop func()
}

// startIn runs a node in a directory, until stop or the end of the test.
func startIn(t testing.TB, dir string, changes ...func(*broker.Config)) running {
	t.Helper()
	cfg := broker.Config{Cluster: "test", NodeID: 1, Listen: "127.0.0.1:0", DataDir: dir, Settings: map[string]string{}}
	for _, change := range changes {
		change(&cfg)
	}
	node, err := broker.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- node.Run(context.Background()) }()
	stop := sync.OnceFunc(func() {
		if err := node.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-ran; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return running{node, stop}
}

// setting changes one broker configuration.
func setting(name, value string) func(*broker.Config) {
	return func(c *broker.Config) { c.Settings[name] = value }
}

// client is a connection that speaks kmsg and nothing else.
type client struct {
	net.Conn
	t           testing.TB
	correlation int32
	id          string
}

func dial(t testing.TB, node *broker.Node) *client {
	t.Helper()
	c, err := net.Dial("tcp", node.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &client{Conn: c, t: t, id: "test-client"}
}

// send writes a request of the given version.
func (c *client) send(version int16, req kmsg.Request) {
	c.t.Helper()
	c.correlation++
	req.SetVersion(version)
	frame := wire.AppendRequestHeader(make([]byte, 4), wire.RequestHeader{Key: req.Key(), Version: version, CorrelationID: c.correlation, ClientID: &c.id})
	frame = req.AppendTo(frame)
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	if _, err := c.Write(frame); err != nil {
		c.t.Fatalf("write %s: %v", kmsg.NameForKey(req.Key()), err)
	}
}

// receive reads a response to a request of that kind and version.
func (c *client) receive(correlation int32, version int16, resp kmsg.Response) {
	c.t.Helper()
	frame, err := wire.ReadFrame(c, nil, 1<<30)
	if err != nil {
		c.t.Fatalf("read response to %s: %v", kmsg.NameForKey(resp.Key()), err)
	}
	if got := int32(binary.BigEndian.Uint32(frame)); got != correlation {
		c.t.Fatalf("response to %d, want to %d", got, correlation)
	}
	head := len(wire.AppendResponseHeader(nil, resp.Key(), version, correlation))
	resp.SetVersion(version)
	if err := resp.ReadFrom(frame[head:]); err != nil {
		c.t.Fatalf("decode %s version %d: %v", kmsg.NameForKey(resp.Key()), version, err)
	}
}

// mustClose expects that the node closes the connection without a word.
func (c *client) mustClose() {
	c.t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		c.t.Errorf("read %d bytes and %v, want a closed connection", n, err)
	} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		c.t.Errorf("read: %v, want a closed connection", err)
	}
}

// ask sends a request and returns its response.
func ask[R kmsg.Response](c *client, version int16, req kmsg.Request) R {
	c.t.Helper()
	c.send(version, req)
	resp := req.ResponseKind().(R)
	c.receive(c.correlation, version, resp)
	return resp
}

// wantCode compares an error code.
func wantCode(t testing.TB, what string, got int16, want *kerr.Error) {
	t.Helper()
	code := int16(0)
	if want != nil {
		code = want.Code
	}
	if got != code {
		t.Errorf("%s: error %v, want %v", what, kerr.ErrorForCode(got), kerr.ErrorForCode(code))
	}
}

// createTopic makes a topic with some partitions and configs ("name=value").
func createTopic(c *client, name string, partitions int32, configs ...string) [16]byte {
	c.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, partitions, 1
	for i := 0; i+1 < len(configs); i += 2 {
		rc := kmsg.NewCreateTopicsRequestTopicConfig()
		rc.Name, rc.Value = configs[i], &configs[i+1]
		rt.Configs = append(rt.Configs, rc)
	}
	req.Topics = append(req.Topics, rt)
	resp := ask[*kmsg.CreateTopicsResponse](c, 7, req)
	wantCode(c.t, "create "+name, resp.Topics[0].ErrorCode, nil)
	return resp.Topics[0].TopicID
}

// batch encodes records with the values given.
func batch(t testing.TB, codec wire.Codec, values ...string) wire.Batch {
	t.Helper()
	var records []wire.Record
	for _, v := range values {
		records = append(records, wire.Record{Timestamp: time.Now().UnixMilli(), Key: []byte("k"), Value: []byte(v)})
	}
	b, err := wire.EncodeBatch(nil, records, wire.Plain(codec))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// produceRequest carries one record set for one partition.
func produceRequest(topic string, id [16]byte, partition int32, acks int16, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, 10000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = topic, id
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, records
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// produce appends records and returns the entry of the response.
func produce(c *client, topic string, records []byte) kmsg.ProduceResponseTopicPartition {
	c.t.Helper()
	return ask[*kmsg.ProduceResponse](c, 9, produceRequest(topic, [16]byte{}, 0, -1, records)).Topics[0].Partitions[0]
}

// fetchRequest reads partition 0 of a topic.
func fetchRequest(topic string, id [16]byte, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.SessionEpoch = 0, 1, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic, id
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.FetchOffset, rp.PartitionMaxBytes = offset, 1<<20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// fetch reads partition 0 once.
func fetch(c *client, topic string, offset int64) kmsg.FetchResponseTopicPartition {
	c.t.Helper()
	return ask[*kmsg.FetchResponse](c, 12, fetchRequest(topic, [16]byte{}, offset)).Topics[0].Partitions[0]
}

// values are the record values of a fetched partition.
func values(t testing.TB, records []byte) (out []string) {
	t.Helper()
	for len(records) > 0 {
		b, rest, err := wire.NextBatch(records)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.CheckCRC(); err != nil {
			t.Fatal(err)
		}
		rs, err := b.Records(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			out = append(out, string(r.Value))
		}
		records = rest
	}
	return out
}
