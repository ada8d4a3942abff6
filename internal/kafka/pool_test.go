package kafka

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// testPool is a pool of connections to a fake broker that counts its dials.
func testPool(t *testing.T, lifetime time.Duration) (p *pool, addr string, dials func() int) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	var mu sync.Mutex
	n := 0
	p = newPool(func(ctx context.Context, addr string) (*wire.Conn, time.Time, error) {
		mu.Lock()
		n++
		mu.Unlock()
		conn, err := (&wire.Dialer{}).Connect(ctx, addr)
		var until time.Time
		if lifetime > 0 {
			until = time.Now().Add(lifetime)
		}
		return conn, until, err
	})
	t.Cleanup(p.close)
	return p, fake.ListenAddrs()[0], func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func mustAcquire(t *testing.T, p *pool, addr string, alone bool) *pooled {
	t.Helper()
	c, err := p.acquire(t.Context(), addr, alone)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPoolSharesOneConnection(t *testing.T) {
	p, addr, dials := testPool(t, 0)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c := mustAcquire(t, p, addr, false)
			defer p.release(c, false)
			if _, err := c.Do(t.Context(), kmsg.NewPtrMetadataRequest()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if dials() != 1 || p.connected(addr) != 1 {
		t.Errorf("%d dials, connected %d", dials(), p.connected(addr))
	}
	c := mustAcquire(t, p, addr, false)
	_ = c.Close() // it breaks
	p.release(c, true)
	if p.connected(addr) != 0 {
		t.Error("a broken connection counts as connected")
	}
	if again := mustAcquire(t, p, addr, false); again == c {
		t.Error("a broken connection is handed out")
	}
	if len(p.live) != 1 {
		t.Errorf("%d connections live", len(p.live))
	}
}

func TestPoolLendsConnectionsAlone(t *testing.T) {
	p, addr, dials := testPool(t, 0)
	var lent []*pooled
	for range maxIdle + 2 {
		lent = append(lent, mustAcquire(t, p, addr, true))
	}
	if dials() != maxIdle+2 {
		t.Errorf("%d dials for %d borrowers", dials(), maxIdle+2)
	}
	for _, c := range lent {
		p.release(c, false)
	}
	if len(p.live) != maxIdle {
		t.Errorf("%d connections are kept, want %d", len(p.live), maxIdle)
	}
	c := mustAcquire(t, p, addr, true)
	if dials() != maxIdle+2 {
		t.Error("an idle connection was not used")
	}
	p.release(c, true) // with an answer still on its way
	select {
	case <-c.Done():
	default:
		t.Error("a spent connection is kept")
	}
	for range maxIdle - 1 {
		dead := mustAcquire(t, p, addr, true)
		p.release(dead, false)
		_ = dead.Close()
		if len(p.live) == 0 {
			break
		}
		if next := mustAcquire(t, p, addr, true); next == dead {
			t.Error("a dead connection is handed out")
		} else {
			p.release(next, true)
		}
	}
}

// The broker ends SASL sessions; a connection retires before that, but whoever
// uses it may finish.
func TestPoolRetiresConnections(t *testing.T) {
	p, addr, dials := testPool(t, 50*time.Millisecond)
	old := mustAcquire(t, p, addr, false)
	<-time.After(60 * time.Millisecond) // past its time
	young := mustAcquire(t, p, addr, false)
	if old == young || dials() != 2 {
		t.Fatalf("a connection past its time is handed out, %d dials", dials())
	}
	if _, err := old.Do(t.Context(), kmsg.NewPtrMetadataRequest()); err != nil {
		t.Errorf("the old one was closed in use: %v", err)
	}
	p.release(old, false)
	select {
	case <-old.Done():
	default:
		t.Error("the old one stays open without a user")
	}
	p.release(young, false)
}

func TestPoolCloses(t *testing.T) {
	p, addr, _ := testPool(t, 0)
	shared, alone := mustAcquire(t, p, addr, false), mustAcquire(t, p, addr, true)
	p.close()
	<-shared.Done()
	<-alone.Done()
	p.release(shared, false)
	p.release(alone, false)
	for _, exclusive := range []bool{false, true} {
		if _, err := p.acquire(t.Context(), addr, exclusive); !errors.Is(err, errPoolClosed) {
			t.Errorf("acquire after close: %v", err)
		}
	}
	if len(p.live) != 0 {
		t.Errorf("%d connections live", len(p.live))
	}
}

// One who waits for another's dial gives up with his own context.
func TestPoolWaitEndsWithItsContext(t *testing.T) {
	release := make(chan struct{})
	p := newPool(func(context.Context, string) (*wire.Conn, time.Time, error) {
		<-release
		return nil, time.Time{}, &net.OpError{Op: "dial", Err: errors.New("refused")}
	})
	done := make(chan error, 1)
	go func() {
		_, err := p.acquire(t.Context(), "a:1", false)
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for {
		p.mu.Lock()
		begun := p.places["a:1"] != nil && len(p.places["a:1"].dialing) == 1
		p.mu.Unlock()
		if begun {
			break
		}
	}
	if _, err := p.acquire(ctx, "a:1", false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := <-done; err == nil {
		t.Error("the dial's error is lost")
	}
}

func TestHoldsCode(t *testing.T) {
	commit := kmsg.NewPtrOffsetCommitResponse()
	topic := kmsg.NewOffsetCommitResponseTopic()
	good, bad := kmsg.NewOffsetCommitResponseTopicPartition(), kmsg.NewOffsetCommitResponseTopicPartition()
	bad.ErrorCode = 16
	topic.Partitions = append(topic.Partitions, good, bad)
	commit.Topics = append(commit.Topics, topic)
	heartbeat := kmsg.NewPtrHeartbeatResponse()
	heartbeat.ErrorCode = 16
	for _, resp := range []kmsg.Response{commit, heartbeat} {
		if !holdsCode(resp, 16) || holdsCode(resp, 15) || holdsCode(resp, 0) {
			t.Errorf("%T: codes are not found", resp)
		}
	}
}

func TestBoundsStayBelowTopicIDs(t *testing.T) {
	for _, tc := range []struct {
		req  kmsg.Request
		high int16
	}{
		{kmsg.NewPtrProduceRequest(), 12},
		{kmsg.NewPtrFetchRequest(), 12},
		{kmsg.NewPtrOffsetCommitRequest(), 9},
		{kmsg.NewPtrOffsetFetchRequest(), 9},
		{kmsg.NewPtrMetadataRequest(), kmsg.NewPtrMetadataRequest().MaxVersion()},
		{AtMost(kmsg.NewPtrFetchRequest(), 18), 18},
		{AtMost(kmsg.NewPtrFetchRequest(), 99), kmsg.NewPtrFetchRequest().MaxVersion()},
		{AtMost(kmsg.NewPtrOffsetCommitRequest(), 2), 2},
	} {
		if _, high := bounds(tc.req); high != tc.high {
			t.Errorf("%s: up to v%d, want v%d", kmsg.NameForKey(tc.req.Key()), high, tc.high)
		}
	}
}
