package broker_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// transcript runs a script of requests and writes down what came back: error
// names, epochs, offsets. Producer ids are told as letters in the order seen, so
// that two brokers can be compared.
type transcript struct {
	*client

	lines []string
	ids   map[int64]string
}

func (s *transcript) say(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *transcript) name(id int64) string {
	if id < 0 {
		return "none"
	}
	if s.ids[id] == "" {
		s.ids[id] = string(rune('A' + len(s.ids)))
	}
	return s.ids[id]
}

func codeName(code int16) string {
	if code == 0 {
		return "ok"
	}
	if e := kerr.TypedErrorForCode(code); e != nil {
		return e.Message
	}
	return fmt.Sprint(code)
}

// settled repeats a request until its code is none that passes.
func settled[R kmsg.Response](s *transcript, version int16, req kmsg.Request, code func(R) int16) R {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(3 * time.Millisecond) {
		resp := ask[R](s.client, version, req)
		if c := code(resp); time.Now().After(deadline) ||
			c != kerr.ConcurrentTransactions.Code && c != kerr.CoordinatorLoadInProgress.Code && c != kerr.CoordinatorNotAvailable.Code && c != kerr.NotCoordinator.Code {
			return resp
		}
	}
}

// init asks for a producer id and writes down what came back.
func (s *transcript) init(what, txn string, version int16, timeout int32, id int64, epoch int16) *producer {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &txn, timeout, id, epoch
	resp := settled(s, version, req, func(r *kmsg.InitProducerIDResponse) int16 { return r.ErrorCode })
	s.say("%s: init %q v%d: %s %s/%d", what, txn, version, codeName(resp.ErrorCode), s.name(resp.ProducerID), resp.ProducerEpoch)
	return &producer{c: s.client, txn: txn, id: resp.ProducerID, epoch: resp.ProducerEpoch}
}

func (s *transcript) add(what string, version int16, p *producer, topics ...string) {
	req := p.addRequest(topics[0], 0)
	for _, topic := range topics[1:] {
		rt := kmsg.NewAddPartitionsToTxnRequestTopic()
		rt.Topic, rt.Partitions = topic, []int32{0}
		req.Topics = append(req.Topics, rt)
	}
	resp := settled(s, version, req, func(r *kmsg.AddPartitionsToTxnResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode })
	var codes []string
	for _, t := range resp.Topics {
		codes = append(codes, t.Topic+"="+codeName(t.Partitions[0].ErrorCode))
	}
	slices.Sort(codes)
	s.say("%s: add v%d: %s", what, version, strings.Join(codes, " "))
}

// batched is AddPartitionsToTxn as brokers send it.
func (s *transcript) batched(what string, version int16, p *producer, verify bool, topics ...string) {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	txn := kmsg.NewAddPartitionsToTxnRequestTransaction()
	txn.TransactionalID, txn.ProducerID, txn.ProducerEpoch, txn.VerifyOnly = p.txn, p.id, p.epoch, verify
	for _, topic := range topics {
		rt := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
		rt.Topic, rt.Partitions = topic, []int32{0}
		txn.Topics = append(txn.Topics, rt)
	}
	req.Transactions = append(req.Transactions, txn)
	resp := settled(s, version, req, func(r *kmsg.AddPartitionsToTxnResponse) int16 {
		if len(r.Transactions) == 0 {
			return r.ErrorCode
		}
		return r.Transactions[0].Topics[0].Partitions[0].ErrorCode
	})
	var codes []string
	for _, x := range resp.Transactions {
		for _, t := range x.Topics {
			codes = append(codes, t.Topic+"="+codeName(t.Partitions[0].ErrorCode))
		}
	}
	slices.Sort(codes)
	s.say("%s: add v%d (verify %v): %s %s", what, version, verify, codeName(resp.ErrorCode), strings.Join(codes, " "))
}

// end ends a transaction; the producer takes over what version 5 answers.
func (s *transcript) end(what string, version int16, p *producer, commit bool) {
	resp := settled(s, version, p.endRequest(commit), func(r *kmsg.EndTxnResponse) int16 { return r.ErrorCode })
	if version < 5 {
		s.say("%s: end v%d commit %v: %s", what, version, commit, codeName(resp.ErrorCode))
		return
	}
	s.say("%s: end v%d commit %v: %s %s/%d", what, version, commit, codeName(resp.ErrorCode), s.name(resp.ProducerID), resp.ProducerEpoch)
	if resp.ErrorCode == 0 {
		p.id, p.epoch = resp.ProducerID, resp.ProducerEpoch
	}
}

func (s *transcript) write(what string, version int16, p *producer, topic string, b wire.Batch) {
	req := produceRequest(topic, [16]byte{}, 0, -1, b)
	req.TransactionID = &p.txn
	resp := settled(s, version, req, func(r *kmsg.ProduceResponse) int16 {
		code := r.Topics[0].Partitions[0].ErrorCode
		if code == kerr.NotEnoughReplicas.Code {
			return kerr.ConcurrentTransactions.Code // it passes
		}
		return code
	})
	got := resp.Topics[0].Partitions[0]
	s.say("%s: produce v%d: %s at %d", what, version, codeName(got.ErrorCode), got.BaseOffset)
}

// end waits until a log has that many offsets, and writes down where it is stable.
func (s *transcript) ends(what, topic string, end int64) {
	awaitEnd(s.client, topic, 0, end)
	s.say("%s: %s ends at %d, stable at %d", what, topic, end, listOffset(s.client, topic, 0, -1, 1))
}

// state writes down what DescribeTransactions says, once the markers are written.
func (s *transcript) state(what, txn string) {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{txn}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(3 * time.Millisecond) {
		got := ask[*kmsg.DescribeTransactionsResponse](s.client, 0, req).TransactionStates[0]
		if strings.HasPrefix(got.State, "Prepare") && time.Now().Before(deadline) {
			continue
		}
		var partitions []string
		for _, t := range got.Topics {
			partitions = append(partitions, fmt.Sprint(t.Topic, t.Partitions))
		}
		slices.Sort(partitions)
		s.say("%s: %s is %s, %s %s/%d, timeout %d, began %v, %v", what, txn, got.State, codeName(got.ErrorCode), s.name(got.ProducerID), got.ProducerEpoch,
			got.TimeoutMillis, got.StartTimestamp > 0, partitions)
		return
	}
}

// producers writes down what DescribeProducers says.
func (s *transcript) producers(what, topic string) {
	req := kmsg.NewPtrDescribeProducersRequest()
	rt := kmsg.NewDescribeProducersRequestTopic()
	rt.Topic, rt.Partitions = topic, []int32{0, 9}
	req.Topics = append(req.Topics, rt)
	for _, p := range ask[*kmsg.DescribeProducersResponse](s.client, 0, req).Topics[0].Partitions {
		var lines []string
		for _, a := range p.ActiveProducers {
			lines = append(lines, fmt.Sprintf("%s/%d last %d open at %d coordinator %v", s.name(a.ProducerID), a.ProducerEpoch, a.LastSequence, a.CurrentTxnStartOffset, a.CoordinatorEpoch >= 0))
		}
		slices.Sort(lines)
		s.say("%s: producers of %s/%d: %s %s", what, topic, p.Partition, codeName(p.ErrorCode), strings.Join(lines, "; "))
	}
}

// read writes down a whole log as a consumer of an isolation level gets it.
func (s *transcript) read(what, topic string, isolation int8) {
	req := fetchRequest(topic, [16]byte{}, 0)
	req.IsolationLevel, req.ReplicaID = isolation, -1
	got := ask[*kmsg.FetchResponse](s.client, 11, req).Topics[0].Partitions[0]
	s.say("%s: read %s isolation %d: %s, stable %d, end %d", what, topic, isolation, codeName(got.ErrorCode), got.LastStableOffset, got.HighWatermark)
	for _, a := range got.AbortedTransactions {
		s.say("  aborted %s from %d", s.name(a.ProducerID), a.FirstOffset)
	}
	for rest := got.RecordBatches; len(rest) > 0; {
		b, after, err := wire.NextBatch(rest)
		if err != nil {
			s.t.Fatal(err)
		}
		rest = after
		records, err := b.Records(1 << 20)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range records {
			key, value := string(r.Key), string(r.Value)
			if b.IsControl() {
				key, value = fmt.Sprintf("%x", r.Key), ""
			}
			s.say("  %d %s/%d seq %d transactional %v control %v: %s=%s", r.Offset, s.name(b.ProducerID()), b.ProducerEpoch(), b.BaseSequence(), b.IsTransactional(), b.IsControl(), key, value)
		}
	}
}

func (s *transcript) commitOffset(what string, version int16, p *producer, group, member string, generation int32, topic string, offset int64) {
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = p.txn, group, p.id, p.epoch
	req.MemberID, req.Generation = member, generation
	rt := kmsg.NewTxnOffsetCommitRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rp.Offset, rp.Metadata = offset, new(string)
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp := settled(s, version, req, func(r *kmsg.TxnOffsetCommitResponse) int16 { return r.Topics[0].Partitions[0].ErrorCode })
	s.say("%s: commit offset %d v%d: %s", what, offset, version, codeName(resp.Topics[0].Partitions[0].ErrorCode))
}

func (s *transcript) addOffsets(what string, version int16, p *producer, group string) {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = p.txn, group, p.id, p.epoch
	resp := settled(s, version, req, func(r *kmsg.AddOffsetsToTxnResponse) int16 { return r.ErrorCode })
	s.say("%s: add offsets v%d: %s", what, version, codeName(resp.ErrorCode))
}

func (s *transcript) offset(what, group, topic string, stable bool) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = stable
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	gt := kmsg.NewOffsetFetchRequestGroupTopic()
	gt.Topic, gt.Partitions = topic, []int32{0}
	g.Topics = append(g.Topics, gt)
	req.Groups = append(req.Groups, g)
	got := settled(s, 8, req, func(r *kmsg.OffsetFetchResponse) int16 { return r.Groups[0].ErrorCode }).Groups[0].Topics[0].Partitions[0]
	s.say("%s: offset of %s (stable %v): %s %d", what, group, stable, codeName(got.ErrorCode), got.Offset)
}

// awaitOffset waits until the end of a transaction shows.
func (s *transcript) awaitOffset(group, topic string) {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(3 * time.Millisecond) {
		before := len(s.lines)
		s.offset("", group, topic, true)
		line := s.lines[before]
		s.lines = s.lines[:before]
		if !strings.Contains(line, "UNSTABLE") {
			return
		}
	}
	s.say("the offset of %s never became stable", group)
}

func (s *transcript) list(what string, version int16, change func(*kmsg.ListTransactionsRequest)) {
	req := kmsg.NewPtrListTransactionsRequest()
	change(req)
	resp := ask[*kmsg.ListTransactionsResponse](s.client, version, req)
	var lines []string
	for _, x := range resp.TransactionStates {
		lines = append(lines, fmt.Sprint(x.TransactionalID, " ", x.TransactionState, " ", s.name(x.ProducerID)))
	}
	slices.Sort(lines)
	s.say("%s: list v%d: %s unknown %v: %s", what, version, codeName(resp.ErrorCode), resp.UnknownStateFilters, strings.Join(lines, "; "))
}

func (s *transcript) marker(what string, p *producer, epoch int16, coordinator int32, topic string) {
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	m := kmsg.NewWriteTxnMarkersRequestMarker()
	m.ProducerID, m.ProducerEpoch, m.CoordinatorEpoch = p.id, epoch, coordinator
	rt := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
	rt.Topic, rt.Partitions = topic, []int32{0}
	m.Topics = append(m.Topics, rt)
	req.Markers = append(req.Markers, m)
	resp := ask[*kmsg.WriteTxnMarkersResponse](s.client, 1, req)
	s.say("%s: marker: %s", what, codeName(resp.Markers[0].Topics[0].Partitions[0].ErrorCode))
}

// TestTransactionsAsKafka holds what this node answers to the script, and what
// its logs say then, against what Apache Kafka 4.1.1 did. KMIRROR_KAFKA is the
// address of a fresh one, to write that down anew; it has 4 partitions of
// __consumer_offsets and looks for transactions that are over time every 300 ms.
func TestTransactionsAsKafka(t *testing.T) {
	const golden = "testdata/transactions.kafka-4.1.1.txt"
	run := func(c *client) []string {
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		s := &transcript{client: c, ids: map[int64]string{}}
		s.script()
		return s.lines
	}
	if address := os.Getenv("KMIRROR_KAFKA"); address != "" {
		theirs, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		lines := run(&client{Conn: theirs, t: t, id: "test-client"})
		if err := os.WriteFile(golden, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kafka, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	ours := run(dial(t, start(t, setting("offsets.topic.num.partitions", "4"))))
	if diff := cmp.Diff(strings.Split(strings.TrimSuffix(string(kafka), "\n"), "\n"), ours); diff != "" {
		t.Errorf("Kafka (-) and we (+) differ:\n%s", diff)
	}
}
