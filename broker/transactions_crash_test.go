package broker_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// crashing names the data directory of a node that this test program is to run
// until it is killed.
const crashing = "KMIRROR_TEST_NODE"

// TestNodeToBeKilled is no test: it is the node of TestKilledAtEveryStep, in a
// process of its own.
func TestNodeToBeKilled(t *testing.T) {
	dir := os.Getenv(crashing)
	if dir == "" {
		t.Skip("started by TestKilledAtEveryStep")
	}
	node := startIn(t, dir, setting("transaction.state.log.num.partitions", "2"), setting("offsets.topic.num.partitions", "2")).node
	if _, err := fmt.Fprintln(os.Stderr, "address", node.Addr()); err != nil {
		t.Fatal(err)
	}
	select {}
}

// mortal is a node that is killed and started again.
type mortal struct {
	t       *testing.T
	dir     string
	cmd     *exec.Cmd
	address string
	client  *client
}

func (m *mortal) start() {
	m.t.Helper()
	m.cmd = exec.CommandContext(m.t.Context(), os.Args[0], "-test.run=^TestNodeToBeKilled$") //nolint:gosec // this very program
	m.cmd.Env = append(os.Environ(), crashing+"="+m.dir)
	stderr, err := m.cmd.StderrPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if _, address, ok := strings.Cut(lines.Text(), "address "); ok {
			m.address = address
			break
		}
	}
	go func() { // nothing may fill the pipe
		for lines.Scan() {
			continue
		}
	}()
	m.dial()
}

func (m *mortal) dial() {
	m.t.Helper()
	c, err := new(net.Dialer).DialContext(m.t.Context(), "tcp", m.address)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	m.client = &client{Conn: c, t: m.t, id: "test-client"}
}

func (m *mortal) kill() {
	if err := m.cmd.Process.Kill(); err != nil {
		m.t.Fatal(err)
	}
	_ = m.cmd.Wait() // it was killed
}

// step is one request of a transaction. sure says what is known when its answer
// was seen: 0 that it must not show, 1 that it must, -1 nothing.
type step struct {
	name string
	do   func()
}

// TestKilledAtEveryStep kills the node after every request of a transaction, and
// while the next one is under way. After each, a transaction shows whole or not
// at all, with its offset, as its producer was told; and no partition hangs.
func TestKilledAtEveryStep(t *testing.T) {
	rounds := 1
	if os.Getenv("KMIRROR_ROUNDS") != "" {
		rounds = 10
	}
	m := &mortal{t: t, dir: t.TempDir()}
	m.start()
	defer m.kill()
	createTopic(m.client, "a", 1)
	createTopic(m.client, "b", 1)
	h := &crashHistory{mortal: m, must: map[string]bool{}}
	for round := range rounds {
		for _, version := range []int16{11, 12} {
			for at := 0; ; at++ {
				if done := h.transaction(fmt.Sprintf("%d-%d-%d", round, version, at), version, at); done {
					break
				}
			}
		}
	}
	h.check()
	t.Logf("%d transactions, %d of them committed", h.count, len(h.must))
}

// crashHistory is what was asked for, and what was answered.
type crashHistory struct {
	*mortal

	count  int
	must   map[string]bool // values of transactions that were committed, by the answer or by what was read after
	offset int64           // the group's last committed one
}

// transaction runs one until the node is killed after step number at; done when
// there are no such steps.
func (h *crashHistory) transaction(value string, version int16, at int) (done bool) {
	h.count++
	commit := h.count%3 != 0
	p := initProducer(h.client, "id")
	old := version < 12
	offset := h.offset + 1
	answered := false
	steps := []step{
		{"begin", func() {}},
		{"add", func() {
			if old {
				p.add("a", 0)
			}
		}},
		{"write a", func() { h.write(p, version, "a", value) }},
		{"add b", func() {
			if old {
				p.add("b", 0)
			}
		}},
		{"write b", func() { h.write(p, version, "b", value) }},
		{"offsets", func() { h.commit(p, old, offset) }},
		{"end", func() {
			end := int16(5)
			if old {
				end = 4
			}
			resp := ask[*kmsg.EndTxnResponse](p.c, end, p.endRequest(commit))
			wantCode(h.t, "end", resp.ErrorCode, nil)
			answered = true
		}},
		{"markers", func() { time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond) }}, //nolint:gosec // any moment will do
	}
	if at >= 2*len(steps) {
		return true
	}
	for i, s := range steps[:min(at/2+1, len(steps))] {
		if i == at/2 && at%2 == 1 { // killed while the request is under way
			h.killDuring(s)
			break
		}
		s.do()
	}
	if at%2 == 0 {
		h.kill()
	}
	h.start()
	h.settle(value, offset, commit, answered)
	return false
}

// killDuring asks for something and kills the node before the answer is read.
func (h *crashHistory) killDuring(s step) {
	alive := h.mortal.client
	quiet := &quietConn{Conn: alive.Conn}
	alive.Conn = quiet
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }() // the connection is lost
		s.do()
	}()
	time.Sleep(time.Duration(rand.IntN(1500)) * time.Microsecond) //nolint:gosec // any moment will do
	h.kill()
	<-done
}

func (h *crashHistory) write(p *producer, version int16, topic, value string) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		code := p.write(version, topic, 0, p.records(0, true, value)).ErrorCode
		if passes(code) && time.Now().Before(deadline) {
			continue
		}
		wantCode(h.t, "write "+topic, code, nil)
		return
	}
}

func (h *crashHistory) commit(p *producer, old bool, offset int64) {
	if old {
		req := kmsg.NewPtrAddOffsetsToTxnRequest()
		req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = p.txn, "g", p.id, p.epoch
		wantCode(h.t, "add offsets", ask[*kmsg.AddOffsetsToTxnResponse](p.c, 3, req).ErrorCode, nil)
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = p.txn, "g", p.id, p.epoch, -1
	rt := kmsg.NewTxnOffsetCommitRequestTopic()
	rt.Topic = "a"
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rp.Offset, rp.Metadata = offset, new(string)
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	version := int16(5)
	if old {
		version = 3
	}
	wantCode(h.t, "commit offset", ask[*kmsg.TxnOffsetCommitResponse](p.c, version, req).Topics[0].Partitions[0].ErrorCode, nil)
}

// settle ends what the killed producer left, and looks at what became of it.
func (h *crashHistory) settle(value string, offset int64, commit, answered bool) {
	h.t.Helper()
	initProducer(h.client, "id") // aborts an open transaction, and waits for the markers of a decided one
	a, b := slices.Contains(h.read("a"), value), slices.Contains(h.read("b"), value)
	committed := h.committed()
	switch {
	case a != b || a != (committed == offset):
		h.t.Fatalf("transaction %s: in a %v, in b %v, the offset is %d, its own %d", value, a, b, committed, offset)
	case a && !commit:
		h.t.Fatalf("transaction %s shows, and was never committed", value)
	case answered && commit && !a:
		h.t.Fatalf("transaction %s was committed and does not show", value)
	}
	if a {
		h.must[value], h.offset = true, offset
	}
}

// committed is the group's offset, when it is stable.
func (h *crashHistory) committed() int64 {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = "g"
	gt := kmsg.NewOffsetFetchRequestGroupTopic()
	gt.Topic, gt.Partitions = "a", []int32{0}
	g.Topics = append(g.Topics, gt)
	req.Groups = append(req.Groups, g)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		got := ask[*kmsg.OffsetFetchResponse](h.client, 8, req).Groups[0]
		if got.ErrorCode == kerr.CoordinatorLoadInProgress.Code && time.Now().Before(deadline) {
			continue
		}
		wantCode(h.t, "fetch offset", got.ErrorCode, nil)
		wantCode(h.t, "fetch offset", got.Topics[0].Partitions[0].ErrorCode, nil)
		return max(got.Topics[0].Partitions[0].Offset, 0)
	}
}

// read is what a read_committed consumer gets of a topic. Nothing may be open in it.
func (h *crashHistory) read(topic string) (out []string) {
	h.t.Helper()
	end := listOffset(h.client, topic, 0, -1, 0)
	if stable := listOffset(h.client, topic, 0, -1, 1); stable != end {
		h.t.Fatalf("%s hangs at %d of %d", topic, stable, end)
	}
	req := fetchRequest(topic, [16]byte{}, 0)
	req.IsolationLevel, req.MaxBytes = 1, 1<<30
	req.Topics[0].Partitions[0].PartitionMaxBytes = 1 << 30
	got := ask[*kmsg.FetchResponse](h.client, 11, req).Topics[0].Partitions[0]
	wantCode(h.t, "fetch", got.ErrorCode, nil)
	return committedValues(h.t, got)
}

func (h *crashHistory) check() {
	for _, topic := range []string{"a", "b"} {
		values := h.read(topic)
		for _, v := range values {
			if !h.must[v] {
				h.t.Errorf("%s has %s, which was not committed", topic, v)
			}
		}
		if len(values) != len(h.must) {
			h.t.Errorf("%s has %d values, want %d", topic, len(values), len(h.must))
		}
	}
}

// quietConn is a connection whose end ends the goroutine that uses it.
type quietConn struct{ net.Conn }

func (c *quietConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		panic(err)
	}
	return n, nil
}

func (c *quietConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		panic(err)
	}
	return n, nil
}
