package broker_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker"
	"kmirror/internal/wire"
)

func TestProduceInEveryVersion(t *testing.T) {
	c := dial(t, start(t))
	id := createTopic(c, "t", 1)
	for version := int16(3); version <= 13; version++ {
		name, topicID := "t", [16]byte{}
		if version >= 13 {
			name, topicID = "", id
		}
		resp := ask[*kmsg.ProduceResponse](c, version, produceRequest(name, topicID, 0, -1, batch(t, wire.CodecNone, "v")))
		p := resp.Topics[0].Partitions[0]
		wantCode(t, "produce", p.ErrorCode, nil)
		if p.BaseOffset != int64(version-3) || p.LogAppendTime != -1 || resp.Topics[0].Topic != name || resp.Topics[0].TopicID != topicID {
			t.Errorf("version %d: %+v", version, resp.Topics[0])
		}
	}
	if got := fetch(c, "t", 0); got.HighWatermark != 11 || len(values(t, got.RecordBatches)) != 11 {
		t.Errorf("after eleven records: high watermark %d, %d records", got.HighWatermark, len(values(t, got.RecordBatches)))
	}
}

func TestProduceRefusals(t *testing.T) {
	c := dial(t, start(t))
	createTopic(c, "t", 1)
	createTopic(c, "compacted", 1, "cleanup.policy", "compact")
	createTopic(c, "small", 1, "max.message.bytes", "200")
	createTopic(c, "stamped", 1, "message.timestamp.type", "LogAppendTime")
	good := batch(t, wire.CodecNone, "a", "b")
	changed := func(change func(b wire.Batch)) []byte {
		b := wire.Batch(bytes.Clone(good))
		change(b)
		return b
	}
	encoded := func(o wire.BatchOptions) []byte {
		b, err := wire.EncodeBatch(nil, []wire.Record{{Value: []byte("v")}}, o)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	transactional := wire.Plain(wire.CodecNone)
	transactional.Transactional, transactional.ProducerID, transactional.ProducerEpoch, transactional.BaseSequence = true, 1, 0, 0
	control := wire.Plain(wire.CodecNone)
	control.Control = true
	keyless := encoded(wire.Plain(wire.CodecNone))
	for _, tc := range []struct {
		name    string
		topic   string
		records []byte
		want    *kerr.Error
	}{
		{"a good one", "t", good, nil},
		{"no records", "t", nil, kerr.InvalidRecord},
		{"half a batch", "t", good[:40], kerr.InvalidRecord},
		{"two batches", "t", append(bytes.Clone(good), good...), kerr.InvalidRecord},
		{"a wrong checksum", "t", changed(func(b wire.Batch) { b[len(b)-1] ^= 1 }), kerr.CorruptMessage},
		{"magic 0", "t", changed(func(b wire.Batch) { b[16] = 0 }), kerr.InvalidRecord},
		{"magic 1", "t", changed(func(b wire.Batch) { b[16] = 1 }), kerr.InvalidRecord},
		{"a base offset", "t", changed(func(b wire.Batch) { b.SetBaseOffset(5) }), kerr.InvalidRecord},
		{"a transaction without an id", "t", encoded(transactional), kerr.TransactionalIDAuthorizationFailed},
		{"a marker", "t", encoded(control), kerr.InvalidRecord},
		{"an unknown topic", "unknown", good, kerr.UnknownTopicOrPartition},
		{"no key in a compacted topic", "compacted", keyless, kerr.InvalidRecord},
		{"a batch that is too large", "small", batch(t, wire.CodecNone, strings.Repeat("x", 300)), kerr.MessageTooLarge},
		{"gzip", "t", batch(t, wire.CodecGzip, "z"), nil},
		{"snappy", "t", batch(t, wire.CodecSnappy, "z"), nil},
		{"lz4", "t", batch(t, wire.CodecLZ4, "z"), nil},
		{"zstd", "t", batch(t, wire.CodecZstd, "z"), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := produce(c, tc.topic, tc.records)
			wantCode(t, "produce", p.ErrorCode, tc.want)
			if tc.want != nil && (p.BaseOffset != -1 || p.LogAppendTime != -1) {
				t.Errorf("a refused batch has offset %d and time %d", p.BaseOffset, p.LogAppendTime)
			}
		})
	}
	if p := produce(c, "compacted", keyless); len(p.ErrorRecords) != 1 || p.ErrorRecords[0].RelativeOffset != 0 {
		t.Errorf("record errors %+v, want one for record 0", p.ErrorRecords)
	}
	if p := produce(c, "stamped", good); p.LogAppendTime <= 0 {
		t.Errorf("log append time %d", p.LogAppendTime)
	}
	zstd := ask[*kmsg.ProduceResponse](c, 6, produceRequest("t", [16]byte{}, 0, -1, batch(t, wire.CodecZstd, "z")))
	wantCode(t, "zstd before version 7", zstd.Topics[0].Partitions[0].ErrorCode, kerr.UnsupportedCompressionType)
	acks := ask[*kmsg.ProduceResponse](c, 9, produceRequest("t", [16]byte{}, 0, 2, good))
	wantCode(t, "acks=2", acks.Topics[0].Partitions[0].ErrorCode, kerr.InvalidRequiredAcks)
	other := ask[*kmsg.ProduceResponse](c, 9, produceRequest("t", [16]byte{}, 7, -1, good))
	wantCode(t, "partition 7 of 1", other.Topics[0].Partitions[0].ErrorCode, kerr.UnknownTopicOrPartition)
	byID := ask[*kmsg.ProduceResponse](c, 13, produceRequest("", [16]byte{9}, 0, -1, good))
	wantCode(t, "an unknown id", byID.Topics[0].Partitions[0].ErrorCode, kerr.UnknownTopicID)
}

func TestProduceWithoutAcknowledgement(t *testing.T) {
	node := start(t)
	c := dial(t, node)
	createTopic(c, "t", 1)
	c.send(9, produceRequest("t", [16]byte{}, 0, 0, batch(t, wire.CodecNone, "a")))
	if p := produce(c, "t", batch(t, wire.CodecNone, "b")); p.BaseOffset != 1 { // the next answer is the next request's
		t.Errorf("offset %d after one record without acknowledgement", p.BaseOffset)
	}
	c.send(9, produceRequest("missing", [16]byte{}, 0, 0, batch(t, wire.CodecNone, "a")))
	c.mustClose()
}

func TestIdempotence(t *testing.T) {
	c := dial(t, start(t))
	createTopic(c, "t", 1)
	init := ask[*kmsg.InitProducerIDResponse](c, 4, kmsg.NewPtrInitProducerIDRequest())
	wantCode(t, "init", init.ErrorCode, nil)
	if second := ask[*kmsg.InitProducerIDResponse](c, 4, kmsg.NewPtrInitProducerIDRequest()); second.ProducerID == init.ProducerID {
		t.Errorf("two producers have id %d", init.ProducerID)
	}
	from := func(sequence int32, epoch int16) []byte {
		o := wire.Plain(wire.CodecNone)
		o.ProducerID, o.ProducerEpoch, o.BaseSequence = init.ProducerID, epoch, sequence
		b, err := wire.EncodeBatch(nil, []wire.Record{{Value: []byte("v")}}, o)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, step := range []struct {
		name     string
		sequence int32
		epoch    int16
		want     *kerr.Error
		offset   int64
	}{
		{"first", 0, 0, nil, 0},
		{"second", 1, 0, nil, 1},
		{"the second again", 1, 0, nil, 1},
		{"a gap", 3, 0, kerr.OutOfOrderSequenceNumber, -1},
		{"a new epoch that does not begin at 0", 2, 1, kerr.OutOfOrderSequenceNumber, -1},
		{"a new epoch", 0, 1, nil, 2},
		{"the old epoch", 2, 0, kerr.InvalidProducerEpoch, -1},
	} {
		p := produce(c, "t", from(step.sequence, step.epoch))
		wantCode(t, step.name, p.ErrorCode, step.want)
		if p.BaseOffset != step.offset {
			t.Errorf("%s: offset %d, want %d", step.name, p.BaseOffset, step.offset)
		}
	}
	describe := kmsg.NewPtrDescribeProducersRequest()
	dt := kmsg.NewDescribeProducersRequestTopic()
	dt.Topic, dt.Partitions = "t", []int32{0, 5}
	describe.Topics = append(describe.Topics, dt)
	partitions := ask[*kmsg.DescribeProducersResponse](c, 0, describe).Topics[0].Partitions
	if len(partitions[0].ActiveProducers) != 1 || partitions[0].ActiveProducers[0].ProducerEpoch != 1 {
		t.Errorf("producers %+v", partitions[0].ActiveProducers)
	}
	wantCode(t, "producers of partition 5", partitions[1].ErrorCode, kerr.UnknownTopicOrPartition)
}

// A batch that is small on the wire and large in memory is refused before it
// is large in memory.
func TestBatchThatInflates(t *testing.T) {
	node := start(t, func(c *broker.Config) { c.Limits.InflateBytes = 1 << 20 })
	c := dial(t, node)
	createTopic(c, "t", 1)
	for _, codec := range []wire.Codec{wire.CodecGzip, wire.CodecSnappy, wire.CodecLZ4, wire.CodecZstd} {
		if p := produce(c, "t", batch(t, codec, strings.Repeat("\x00", 8<<20))); p.ErrorCode == 0 {
			t.Errorf("%v: a batch of 8 MiB was taken", codec)
		}
		wantCode(t, "a small one", produce(c, "t", batch(t, codec, "small")).ErrorCode, nil)
	}
}
