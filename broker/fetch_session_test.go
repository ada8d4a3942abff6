package broker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetchOf asks for partitions 0..n-1 of topic t, by name.
func fetchOf(id, epoch int32, n int) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.SessionID, req.SessionEpoch = 12, id, epoch
	t := kmsg.NewFetchRequestTopic()
	t.Topic = "t"
	for i := range n {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition = int32(i)
		t.Partitions = append(t.Partitions, p)
	}
	if n > 0 {
		req.Topics = append(req.Topics, t)
	}
	return req
}

func partitionsOf(s *fetchSession) (order []int32) {
	for p := s.first; p != nil; p = p.next {
		order = append(order, p.key.partition)
	}
	return order
}

// open makes a session as a first fetch does and returns its id.
func open(t *testing.T, c *sessionCache, n int, now time.Time) int32 {
	t.Helper()
	req := fetchOf(0, 0, n)
	s, code := c.begin(req, now)
	if code != 0 {
		t.Fatalf("a full fetch was refused with %d", code)
	}
	c.establish(s, req, now)
	c.finish(s)
	return s.id
}

func TestFetchSessionLife(t *testing.T) {
	now := time.Now()
	c := newSessionCache(10, 1000)
	id := open(t, c, 3, now)
	if id == 0 {
		t.Fatal("no session was made")
	}

	s, code := c.begin(fetchOf(id, 1, 0), now)
	if code != 0 || !s.incremental || len(partitionsOf(s)) != 3 {
		t.Fatalf("incremental fetch: code %d, session %+v", code, s)
	}
	if _, code := c.begin(fetchOf(id, 2, 0), now); code != kerr.InvalidFetchSessionEpoch.Code {
		t.Errorf("a session in use was given out again: code %d", code)
	}
	s.rotate(s.first)
	if got := partitionsOf(s); got[0] != 1 || got[2] != 0 {
		t.Errorf("order after partition 0 gave data: %v", got)
	}
	c.finish(s)

	if _, code := c.begin(fetchOf(id, 1, 0), now); code != kerr.InvalidFetchSessionEpoch.Code {
		t.Errorf("an old epoch: code %d", code)
	}
	if _, code := c.begin(fetchOf(id+1, 2, 0), now); code != kerr.FetchSessionIDNotFound.Code {
		t.Errorf("an unknown id: code %d", code)
	}
	byID := fetchOf(id, 2, 0)
	byID.Version = 13
	if _, code := c.begin(byID, now); code != kerr.FetchSessionTopicIDError.Code {
		t.Errorf("from names to ids: code %d", code)
	}

	forget := fetchOf(id, 2, 0)
	ft := kmsg.NewFetchRequestForgottenTopic()
	ft.Topic, ft.Partitions = "t", []int32{1, 2}
	forget.ForgottenTopics = append(forget.ForgottenTopics, ft)
	s, code = c.begin(forget, now)
	if code != 0 || len(partitionsOf(s)) != 1 {
		t.Fatalf("after forgetting two of three: code %d, %v", code, partitionsOf(s))
	}
	c.finish(s)

	ft.Partitions = []int32{0}
	forget.ForgottenTopics[0], forget.SessionEpoch = ft, 3
	s, code = c.begin(forget, now)
	if code != 0 || s.id != 0 || c.count() != 0 {
		t.Errorf("an empty session must end: code %d, id %d, %d sessions", code, s.id, c.count())
	}

	id = open(t, c, 1, now)
	if _, code := c.begin(fetchOf(id, -1, 1), now); code != 0 || c.count() != 0 {
		t.Errorf("the final epoch must end the session: code %d, %d sessions", code, c.count())
	}
}

func TestFetchSessionsAreBounded(t *testing.T) {
	now := time.Now()
	c := newSessionCache(2, 5)
	first := open(t, c, 1, now)
	open(t, c, 1, now.Add(time.Second))
	if id := open(t, c, 1, now.Add(2*time.Second)); id != 0 {
		t.Error("a third session in two slots, none of them idle")
	}
	if id := open(t, c, 1, now.Add(sessionIdle+time.Millisecond)); id == 0 {
		t.Error("the idle session kept its slot")
	}
	if _, code := c.begin(fetchOf(first, 1, 0), now); code != kerr.FetchSessionIDNotFound.Code {
		t.Errorf("the evicted session: code %d", code)
	}
	c = newSessionCache(10, 5)
	id := open(t, c, 4, now)
	if other := open(t, c, 2, now); other != 0 {
		t.Error("six partitions in sessions that may hold five")
	}
	s, code := c.begin(fetchOf(id, 1, 9), now)
	if code != 0 || s.id != 0 || s.incremental || c.held != 0 {
		t.Errorf("a session that grew too large goes on without one: code %d, %+v, %d held", code, s, c.held)
	}
}

func TestIncrementalResponseLeavesOutWhatDidNotChange(t *testing.T) {
	p := &fetchPartition{highWatermark: -1, logStart: -1}
	for i, step := range []struct {
		failed, records bool
		high, start     int64
		want            bool
	}{
		{high: 5, want: true},                // first answer
		{high: 5, want: false},               // nothing new
		{high: 5, records: true, want: true}, // records
		{high: 6, want: true},                // high watermark
		{high: 6, start: 2, want: true},      // log start
		{failed: true, high: -1, start: -1, want: true},
		{high: 6, start: 2, want: true}, // the error is gone
		{high: 6, start: 2, want: false},
	} {
		if got := p.answered(step.failed, step.records, step.high, step.start); got != step.want {
			t.Errorf("step %d: in the response %v, want %v", i, got, step.want)
		}
	}
}
