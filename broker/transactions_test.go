package broker_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker"
	"kmirror/internal/wire"
)

// producer is a transactional id with what InitProducerId and EndTxn gave it.
type producer struct {
	c     *client
	txn   string
	id    int64
	epoch int16
}

// initProducer asks until the transaction before is out of the way.
func initProducer(c *client, txn string) *producer {
	c.t.Helper()
	p := &producer{c: c, txn: txn, id: -1, epoch: -1}
	p.init()
	return p
}

func (p *producer) init() {
	p.c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) { // as clients do
		resp := ask[*kmsg.InitProducerIDResponse](p.c, 5, p.initRequest())
		if passes(resp.ErrorCode) && time.Now().Before(deadline) {
			continue
		}
		wantCode(p.c.t, "init "+p.txn, resp.ErrorCode, nil)
		p.id, p.epoch = resp.ProducerID, resp.ProducerEpoch
		return
	}
}

// passes tells of an error that clients answer by asking again.
func passes(code int16) bool {
	return code == kerr.ConcurrentTransactions.Code || code == kerr.CoordinatorLoadInProgress.Code
}

func (p *producer) initRequest() *kmsg.InitProducerIDRequest {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &p.txn, 60_000
	return req
}

func (p *producer) addRequest(topic string, partitions ...int32) *kmsg.AddPartitionsToTxnRequest {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = p.txn, p.id, p.epoch
	rt := kmsg.NewAddPartitionsToTxnRequestTopic()
	rt.Topic, rt.Partitions = topic, partitions
	req.Topics = append(req.Topics, rt)
	return req
}

// add adds partitions in the client's form, until the transaction before is complete.
func (p *producer) add(topic string, partitions ...int32) {
	p.c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		resp := ask[*kmsg.AddPartitionsToTxnResponse](p.c, 3, p.addRequest(topic, partitions...))
		code := resp.Topics[0].Partitions[0].ErrorCode
		if passes(code) && time.Now().Before(deadline) {
			continue
		}
		wantCode(p.c.t, "add "+topic, code, nil)
		return
	}
}

func (p *producer) endRequest(commit bool) *kmsg.EndTxnRequest {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = p.txn, p.id, p.epoch, commit
	return req
}

// end ends the transaction and takes over what the answer gives.
func (p *producer) end(version int16, commit bool) {
	p.c.t.Helper()
	resp := ask[*kmsg.EndTxnResponse](p.c, version, p.endRequest(commit))
	wantCode(p.c.t, "end "+p.txn, resp.ErrorCode, nil)
	if version >= 5 {
		p.id, p.epoch = resp.ProducerID, resp.ProducerEpoch
	}
}

// records is a batch of the producer.
func (p *producer) records(sequence int32, transactional bool, values ...string) wire.Batch {
	p.c.t.Helper()
	var records []wire.Record
	for _, v := range values {
		records = append(records, wire.Record{Timestamp: time.Now().UnixMilli(), Key: []byte("k"), Value: []byte(v)})
	}
	b, err := wire.EncodeBatch(nil, records, wire.BatchOptions{
		ProducerID: p.id, ProducerEpoch: p.epoch, BaseSequence: sequence, LeaderEpoch: -1, Transactional: transactional,
	})
	if err != nil {
		p.c.t.Fatal(err)
	}
	return b
}

// write produces a batch with the version given and returns the entry of the response.
func (p *producer) write(version int16, topic string, partition int32, b wire.Batch) kmsg.ProduceResponseTopicPartition {
	p.c.t.Helper()
	req := produceRequest(topic, [16]byte{}, partition, -1, b)
	if b.IsTransactional() {
		req.TransactionID = &p.txn
	}
	return ask[*kmsg.ProduceResponse](p.c, version, req).Topics[0].Partitions[0]
}

// awaitEnd waits until a partition's log has that many offsets.
func awaitEnd(c *client, topic string, partition int32, end int64) {
	c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		got := listOffset(c, topic, partition, -1, 0)
		if got == end {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s/%d ends at %d, want %d", topic, partition, got, end)
		}
	}
}

func listOffset(c *client, topic string, partition int32, timestamp int64, isolation int8) int64 {
	c.t.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, isolation
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = partition, timestamp, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	got := ask[*kmsg.ListOffsetsResponse](c, 7, req).Topics[0].Partitions[0]
	wantCode(c.t, "list offsets", got.ErrorCode, nil)
	return got.Offset
}

// TestFenceOfPlainWriters is what a mirror does to a dead owner: both write plain
// batches under one transactional id, and an empty aborted transaction ends the
// elder in every partition, also where it never wrote.
func TestFenceOfPlainWriters(t *testing.T) {
	for _, endVersion := range []int16{4, 5} {
		dir := t.TempDir()
		node := startIn(t, dir)
		c := dial(t, node.node)
		createTopic(c, "t", 2)
		a := initProducer(c, "owner")
		if got := a.write(11, "t", 0, a.records(0, false, "a0")); got.ErrorCode != 0 || got.BaseOffset != 0 {
			t.Fatalf("first batch: error %d at %d", got.ErrorCode, got.BaseOffset)
		}
		b := initProducer(c, "owner")
		if b.id != a.id || b.epoch != a.epoch+1 {
			t.Fatalf("the successor has %d/%d after %d/%d", b.id, b.epoch, a.id, a.epoch)
		}
		if got := a.write(11, "t", 0, a.records(1, false, "a1")); got.ErrorCode != 0 || got.BaseOffset != 1 {
			t.Fatalf("a zombie before the fence: error %d at %d", got.ErrorCode, got.BaseOffset)
		}
		b.add("t", 0, 1)
		b.end(endVersion, false)
		awaitEnd(c, "t", 0, 3)
		awaitEnd(c, "t", 1, 1)
		for partition, sequence := range []int32{2, 0} {
			got := a.write(11, "t", int32(partition), a.records(sequence, false, "late"))
			wantCode(t, "a zombie behind the fence", got.ErrorCode, kerr.InvalidProducerEpoch)
		}
		if got := b.write(11, "t", 0, b.records(0, false, "b0")); got.ErrorCode != 0 || got.BaseOffset != 3 {
			t.Fatalf("the successor: error %d at %d", got.ErrorCode, got.BaseOffset)
		}
		if got := b.write(11, "t", 1, b.records(0, false, "b0")); got.ErrorCode != 0 || got.BaseOffset != 1 {
			t.Fatalf("the successor: error %d at %d", got.ErrorCode, got.BaseOffset)
		}
		epoch := b.epoch
		node.stop()
		// The fence and the id outlive the node.
		again := start(t, func(cfg *broker.Config) { cfg.DataDir = dir })
		c = dial(t, again)
		a.c = c
		wantCode(t, "a zombie after a restart", a.write(11, "t", 0, a.records(2, false, "late")).ErrorCode, kerr.InvalidProducerEpoch)
		next := initProducer(c, "owner")
		if next.id != a.id || next.epoch != epoch+1 {
			t.Errorf("after the restart the id has %d/%d, want %d/%d", next.id, next.epoch, a.id, epoch+1)
		}
	}
}

// committedValues are the values that a read_committed consumer takes out of a
// fetched partition: not those between an aborted transaction's first offset and
// its marker.
func committedValues(t testing.TB, p kmsg.FetchResponseTopicPartition) (out []string) {
	t.Helper()
	aborted := make(map[int64]bool)
	starts := slices.Clone(p.AbortedTransactions)
	slices.SortFunc(starts, func(a, b kmsg.FetchResponseTopicPartitionAbortedTransaction) int {
		return cmp.Compare(a.FirstOffset, b.FirstOffset)
	})
	for rest := p.RecordBatches; len(rest) > 0; {
		b, after, err := wire.NextBatch(rest)
		if err != nil {
			t.Fatal(err)
		}
		rest = after
		for len(starts) > 0 && starts[0].FirstOffset <= b.LastOffset() {
			aborted[starts[0].ProducerID] = true
			starts = starts[1:]
		}
		switch {
		case b.IsControl():
			delete(aborted, b.ProducerID())
			continue
		case b.IsTransactional() && aborted[b.ProducerID()]:
			continue
		}
		records, err := b.Records(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			out = append(out, string(r.Value))
		}
	}
	return out
}
