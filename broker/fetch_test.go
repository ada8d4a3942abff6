package broker_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

func TestFetchInEveryVersion(t *testing.T) {
	c := dial(t, start(t))
	id := createTopic(c, "t", 1)
	large := strings.Repeat("x", 200<<10) // leaves by sendfile
	produce(c, "t", batch(t, wire.CodecNone, "small"))
	produce(c, "t", batch(t, wire.CodecNone, large))
	for version := int16(4); version <= 18; version++ {
		name, topicID := "t", [16]byte{}
		if version >= 13 {
			name, topicID = "", id
		}
		for isolation := int8(0); isolation <= 1; isolation++ {
			req := fetchRequest(name, topicID, 0)
			req.IsolationLevel = isolation
			resp := ask[*kmsg.FetchResponse](c, version, req)
			p := resp.Topics[0].Partitions[0]
			wantCode(t, "fetch", p.ErrorCode, nil)
			if got := values(t, p.RecordBatches); !slices.Equal(got, []string{"small", large}) {
				t.Fatalf("version %d: %d records", version, len(got))
			}
			if p.HighWatermark != 2 || p.LastStableOffset != 2 || (p.AbortedTransactions == nil) != (isolation == 0) {
				t.Errorf("version %d, isolation %d: high watermark %d, last stable %d, aborted %v",
					version, isolation, p.HighWatermark, p.LastStableOffset, p.AbortedTransactions)
			}
		}
	}
}

func TestFetchErrors(t *testing.T) {
	c := dial(t, start(t))
	id := createTopic(c, "t", 1)
	produce(c, "t", batch(t, wire.CodecNone, "a", "b", "c"))
	epoch := metadata(c, "t").Topics[0].Partitions[0].LeaderEpoch
	with := func(change func(*kmsg.FetchRequest, *kmsg.FetchRequestTopicPartition)) *kmsg.FetchRequest {
		req := fetchRequest("t", [16]byte{}, 0)
		req.MaxWaitMillis = 20_000 // an error must not wait for it
		change(req, &req.Topics[0].Partitions[0])
		return req
	}
	type part = *kmsg.FetchRequestTopicPartition
	for _, tc := range []struct {
		name string
		req  *kmsg.FetchRequest
		want *kerr.Error
	}{
		{"beyond the end", with(func(_ *kmsg.FetchRequest, p part) { p.FetchOffset = 4 }), kerr.OffsetOutOfRange},
		{"below zero", with(func(_ *kmsg.FetchRequest, p part) { p.FetchOffset = -1 }), kerr.OffsetOutOfRange},
		{"partition 3 of 1", with(func(_ *kmsg.FetchRequest, p part) { p.Partition = 3 }), kerr.UnknownTopicOrPartition},
		{"an unknown topic", with(func(r *kmsg.FetchRequest, _ part) { r.Topics[0].Topic = "u" }), kerr.UnknownTopicOrPartition},
		{"an epoch to come", with(func(_ *kmsg.FetchRequest, p part) { p.CurrentLeaderEpoch = epoch + 1 }), kerr.UnknownLeaderEpoch},
		{"our epoch", with(func(_ *kmsg.FetchRequest, p part) { p.CurrentLeaderEpoch = epoch }), nil},
		{"a follower", with(func(r *kmsg.FetchRequest, _ part) { r.ReplicaID = 2 }), kerr.NotLeaderForPartition},
	} {
		t.Run(tc.name, func(t *testing.T) {
			began := time.Now()
			resp := ask[*kmsg.FetchResponse](c, 12, tc.req)
			wantCode(t, "fetch", resp.Topics[0].Partitions[0].ErrorCode, tc.want)
			if time.Since(began) > 5*time.Second {
				t.Error("the error waited")
			}
		})
	}
	wantCode(t, "an unknown id", ask[*kmsg.FetchResponse](c, 13, fetchRequest("", [16]byte{7}, 0)).Topics[0].Partitions[0].ErrorCode, kerr.UnknownTopicID)
	diverged := fetchRequest("", id, 3)
	diverged.Topics[0].Partitions[0].LastFetchedEpoch = epoch
	wantCode(t, "the same epoch", ask[*kmsg.FetchResponse](c, 13, diverged).Topics[0].Partitions[0].ErrorCode, nil)
}

func metadata(c *client, topics ...string) *kmsg.MetadataResponse {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = &name
		req.Topics = append(req.Topics, rt)
	}
	return ask[*kmsg.MetadataResponse](c, 12, req)
}

// A restart begins a new leader epoch; a consumer with the old one is told so.
func TestRestartKeepsEverythingAndBeginsAnEpoch(t *testing.T) {
	dir := t.TempDir()
	first := startIn(t, dir)
	c := dial(t, first.node)
	id := createTopic(c, "t", 3, "retention.ms", "12345")
	produce(c, "t", batch(t, wire.CodecNone, "a", "b"))
	before := metadata(c, "t").Topics[0]
	pid := ask[*kmsg.InitProducerIDResponse](c, 4, kmsg.NewPtrInitProducerIDRequest()).ProducerID
	first.stop()

	second := startIn(t, dir)
	c = dial(t, second.node)
	after := metadata(c, "t").Topics[0]
	if after.TopicID != id || len(after.Partitions) != 3 || second.node.ClusterID() != first.node.ClusterID() {
		t.Errorf("topic id %x with %d partitions in cluster %s", after.TopicID, len(after.Partitions), second.node.ClusterID())
	}
	if got, old := after.Partitions[0].LeaderEpoch, before.Partitions[0].LeaderEpoch; got != old+1 {
		t.Errorf("leader epoch %d after %d", got, old)
	}
	if again := ask[*kmsg.InitProducerIDResponse](c, 4, kmsg.NewPtrInitProducerIDRequest()).ProducerID; again <= pid {
		t.Errorf("producer id %d was given again after %d", again, pid)
	}
	old := fetchRequest("t", [16]byte{}, 0)
	old.Topics[0].Partitions[0].CurrentLeaderEpoch = before.Partitions[0].LeaderEpoch
	resp := ask[*kmsg.FetchResponse](c, 12, old).Topics[0].Partitions[0]
	wantCode(t, "the old epoch", resp.ErrorCode, kerr.FencedLeaderEpoch)
	if resp.CurrentLeader.LeaderEpoch != after.Partitions[0].LeaderEpoch {
		t.Errorf("current leader %+v", resp.CurrentLeader)
	}
	if got := values(t, fetch(c, "t", 0).RecordBatches); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("records %q", got)
	}
	produce(c, "t", batch(t, wire.CodecNone, "c"))

	ends := kmsg.NewPtrOffsetForLeaderEpochRequest()
	et := kmsg.NewOffsetForLeaderEpochRequestTopic()
	et.Topic = "t"
	for _, epoch := range []int32{before.Partitions[0].LeaderEpoch, after.Partitions[0].LeaderEpoch, 99} {
		ep := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		ep.CurrentLeaderEpoch, ep.LeaderEpoch = -1, epoch
		et.Partitions = append(et.Partitions, ep)
	}
	ends.Topics = append(ends.Topics, et)
	for version := int16(2); version <= 4; version++ {
		got := ask[*kmsg.OffsetForLeaderEpochResponse](c, version, ends).Topics[0].Partitions
		for i, want := range []int64{2, 3, -1} {
			if got[i].EndOffset != want {
				t.Errorf("version %d: epoch %d ends at %d, want %d", version, et.Partitions[i].LeaderEpoch, got[i].EndOffset, want)
			}
		}
	}
}

// The first batch comes whole, however small the limits are; the second does not.
func TestFetchMinOneMessage(t *testing.T) {
	c := dial(t, start(t))
	createTopic(c, "t", 1)
	for range 2 {
		produce(c, "t", batch(t, wire.CodecNone, strings.Repeat("x", 5000)))
	}
	req := fetchRequest("t", [16]byte{}, 0)
	req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = 10, 10
	if got := values(t, ask[*kmsg.FetchResponse](c, 12, req).Topics[0].Partitions[0].RecordBatches); len(got) != 1 {
		t.Errorf("%d records, want 1", len(got))
	}
}

func TestFetchWaits(t *testing.T) {
	node := start(t)
	c, other := dial(t, node), dial(t, node)
	createTopic(c, "t", 1)
	req := fetchRequest("t", [16]byte{}, 0)
	req.MaxWaitMillis = 100
	began := time.Now()
	if p := ask[*kmsg.FetchResponse](c, 12, req).Topics[0].Partitions[0]; p.ErrorCode != 0 || len(p.RecordBatches) != 0 {
		t.Errorf("an empty partition: %+v", p)
	}
	if took := time.Since(began); took < 100*time.Millisecond || took > 5*time.Second {
		t.Errorf("an empty fetch took %v, want 100 ms", took)
	}

	req.MaxWaitMillis, req.MinBytes = 20_000, 150 // one batch is 70 bytes
	c.send(12, req)
	for range 2 {
		produce(other, "t", batch(t, wire.CodecNone, "v"))
	}
	produce(other, "t", batch(t, wire.CodecNone, "w"))
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	c.receive(c.correlation, 12, resp)
	if got := values(t, resp.Topics[0].Partitions[0].RecordBatches); len(got) < 3 {
		t.Errorf("%d records, want all 3 that make up 150 bytes", len(got))
	}

	req.Topics[0].Partitions[0].FetchOffset = 3
	c.send(12, req)
	del := kmsg.NewPtrDeleteTopicsRequest()
	del.TopicNames = []string{"t"}
	ask[*kmsg.DeleteTopicsResponse](other, 5, del)
	c.receive(c.correlation, 12, resp)
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != kerr.UnknownTopicOrPartition.Code && code != kerr.NotLeaderForPartition.Code {
		t.Errorf("a fetch parked on a topic that is deleted: %v", kerr.ErrorForCode(code))
	}
}

func TestFetchSessions(t *testing.T) {
	c := dial(t, start(t))
	createTopic(c, "t", 3)
	full := fetchRequest("t", [16]byte{}, 0)
	full.SessionEpoch = 0
	for i := int32(1); i < 3; i++ {
		p := full.Topics[0].Partitions[0]
		p.Partition = i
		full.Topics[0].Partitions = append(full.Topics[0].Partitions, p)
	}
	resp := ask[*kmsg.FetchResponse](c, 12, full)
	if resp.SessionID == 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 3 {
		t.Fatalf("full fetch: %+v", resp)
	}
	next := kmsg.NewPtrFetchRequest()
	next.SessionID, next.SessionEpoch, next.MinBytes = resp.SessionID, 1, 1
	if got := ask[*kmsg.FetchResponse](c, 12, next); got.ErrorCode != 0 || len(got.Topics) != 0 || got.SessionID != resp.SessionID {
		t.Errorf("nothing is new: %+v", got)
	}
	produce(c, "t", batch(t, wire.CodecNone, "v"))
	next.SessionEpoch = 2
	if got := ask[*kmsg.FetchResponse](c, 12, next); len(got.Topics) != 1 || len(got.Topics[0].Partitions) != 1 || got.Topics[0].Partitions[0].Partition != 0 {
		t.Errorf("one partition has a record: %+v", got)
	}
	wantCode(t, "an old epoch", ask[*kmsg.FetchResponse](c, 12, next).ErrorCode, kerr.InvalidFetchSessionEpoch)
	next.SessionID++
	wantCode(t, "an unknown session", ask[*kmsg.FetchResponse](c, 12, next).ErrorCode, kerr.FetchSessionIDNotFound)
}

func TestListOffsets(t *testing.T) {
	c := dial(t, start(t))
	createTopic(c, "t", 1)
	at := func(millis int64) []byte {
		b, err := wire.EncodeBatch(nil, []wire.Record{{Timestamp: millis, Value: []byte("v")}}, wire.Plain(wire.CodecNone))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	base := time.Now().UnixMilli() - 10_000
	for _, offset := range []int64{0, 100, 300, 200} {
		wantCode(t, "produce", produce(c, "t", at(base+offset)).ErrorCode, nil)
	}
	list := func(version int16, timestamp int64) kmsg.ListOffsetsResponseTopicPartition {
		req := kmsg.NewPtrListOffsetsRequest()
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = "t"
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Timestamp = timestamp
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return ask[*kmsg.ListOffsetsResponse](c, version, req).Topics[0].Partitions[0]
	}
	for version := int16(1); version <= 11; version++ {
		for _, tc := range []struct {
			timestamp, offset, found int64
			from                     int16
		}{
			{-1, 4, -1, 1},
			{-2, 0, -1, 1},
			{-3, 2, base + 300, 7},
			{-4, 0, -1, 8},
			{-5, -1, -1, 9},
			{-6, -1, -1, 11},
			{0, 0, base, 1},
			{base + 1, 1, base + 100, 1},
			{base + 150, 2, base + 300, 1},
			{base + 301, -1, -1, 1},
		} {
			p := list(version, tc.timestamp)
			if version < tc.from {
				wantCode(t, "timestamp "+strconv.FormatInt(tc.timestamp, 10)+" too early", p.ErrorCode, kerr.UnsupportedVersion)
				continue
			}
			wantCode(t, "list", p.ErrorCode, nil)
			if p.Offset != tc.offset || p.Timestamp != tc.found {
				t.Errorf("version %d, timestamp %d: offset %d at %d, want %d at %d", version, tc.timestamp, p.Offset, p.Timestamp, tc.offset, tc.found)
			}
		}
	}
	wantCode(t, "timestamp -7", list(11, -7).ErrorCode, kerr.UnsupportedVersion)
}

func TestDeleteRecords(t *testing.T) {
	c := dial(t, start(t))
	createTopic(c, "t", 1)
	createTopic(c, "compacted", 1, "cleanup.policy", "compact")
	produce(c, "t", batch(t, wire.CodecNone, "a", "b", "c"))
	del := func(topic string, offset int64) kmsg.DeleteRecordsResponseTopicPartition {
		req := kmsg.NewPtrDeleteRecordsRequest()
		rt := kmsg.NewDeleteRecordsRequestTopic()
		rt.Topic = topic
		rp := kmsg.NewDeleteRecordsRequestTopicPartition()
		rp.Offset = offset
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return ask[*kmsg.DeleteRecordsResponse](c, 2, req).Topics[0].Partitions[0]
	}
	for _, tc := range []struct {
		topic  string
		offset int64
		want   *kerr.Error
		low    int64
	}{
		{"t", 4, kerr.OffsetOutOfRange, -1},
		{"t", 2, nil, 2},
		{"t", 1, nil, 2},
		{"t", -1, nil, 3},
		{"compacted", 0, kerr.PolicyViolation, -1},
		{"missing", 0, kerr.UnknownTopicOrPartition, -1},
	} {
		p := del(tc.topic, tc.offset)
		wantCode(t, "delete", p.ErrorCode, tc.want)
		if p.LowWatermark != tc.low {
			t.Errorf("delete before %d: low watermark %d, want %d", tc.offset, p.LowWatermark, tc.low)
		}
	}
	wantCode(t, "a fetch below the start", fetch(c, "t", 0).ErrorCode, kerr.OffsetOutOfRange)
}
