package broker

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	initialSessionEpoch = 0  // asks for a new session
	finalSessionEpoch   = -1 // wants none, and ends the one it names

	sessionIdle = 2 * time.Minute // a session unused for so long may give its slot away
)

// partitionKey names a partition as its session does: by topic id from Fetch
// v13 on, by name before. The other field is zero.
type partitionKey struct {
	topic     string
	id        [16]byte
	partition int32
}

// fetchPartition is one partition of a fetch: what the client asked for last,
// and what it was told last.
type fetchPartition struct {
	key partitionKey

	offset       int64
	maxBytes     int32
	leaderEpoch  int32 // as the client knows it, -1 unknown
	fetchedEpoch int32 // epoch of the client's last record, -1 unknown

	// What the last response said, -1 before the first and after an error.
	highWatermark, logStart int64

	prev, next *fetchPartition // the session's order; partitions with data move to its end
}

func (p *fetchPartition) ask(rp *kmsg.FetchRequestTopicPartition) {
	p.offset = rp.FetchOffset
	p.maxBytes = rp.PartitionMaxBytes
	p.leaderEpoch = rp.CurrentLeaderEpoch
	p.fetchedEpoch = rp.LastFetchedEpoch
}

// answered reports whether an incremental response must contain the partition,
// and remembers what it says. After an error the high watermark is forgotten,
// so that the partition is told again once the error is gone (KIP-227).
func (p *fetchPartition) answered(failed, records bool, highWatermark, logStart int64) bool {
	must := records || failed || p.highWatermark != highWatermark || p.logStart != logStart
	p.highWatermark, p.logStart = highWatermark, logStart
	if failed {
		p.highWatermark = -1
	}
	return must
}

// fetchSession is the set of partitions that one consumer asks for again and
// again (KIP-227). A sessionless fetch uses one, too, that is never cached.
//
// It belongs to one request at a time: the cache hands it out by begin and
// takes it back by finish, and only between those calls may it be read.
type fetchSession struct {
	id          int32 // 0 when not cached
	epoch       int32 // what the next request must bring
	byID        bool  // topics are named by id
	incremental bool  // this response may leave out what has not changed

	partitions  map[partitionKey]*fetchPartition
	first, last *fetchPartition

	// Guarded by the cache's mutex.
	inUse   bool
	used    time.Time
	charged int // partitions counted against the cache's bound
}

func newFetchSession(req *kmsg.FetchRequest) *fetchSession {
	n := 0
	for i := range req.Topics {
		n += len(req.Topics[i].Partitions)
	}
	s := &fetchSession{byID: req.Version >= 13, partitions: make(map[partitionKey]*fetchPartition, n)}
	s.update(req)
	return s
}

// update adds and changes what req names and removes what it forgets.
func (s *fetchSession) update(req *kmsg.FetchRequest) {
	for i := range req.Topics {
		t := &req.Topics[i]
		key := partitionKey{topic: t.Topic, id: t.TopicID}
		for j := range t.Partitions {
			rp := &t.Partitions[j]
			key.partition = rp.Partition
			p := s.partitions[key]
			if p == nil {
				p = &fetchPartition{key: key, highWatermark: -1, logStart: -1}
				s.partitions[key] = p
				s.append(p)
			}
			p.ask(rp)
		}
	}
	for i := range req.ForgottenTopics {
		t := &req.ForgottenTopics[i]
		key := partitionKey{topic: t.Topic, id: t.TopicID}
		for _, key.partition = range t.Partitions {
			if p := s.partitions[key]; p != nil {
				delete(s.partitions, key)
				s.unlink(p)
			}
		}
	}
}

func (s *fetchSession) append(p *fetchPartition) {
	p.prev, p.next = s.last, nil
	if s.last != nil {
		s.last.next = p
	} else {
		s.first = p
	}
	s.last = p
}

func (s *fetchSession) unlink(p *fetchPartition) {
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		s.first = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		s.last = p.prev
	}
	p.prev, p.next = nil, nil
}

// rotate puts a partition that gave data behind all others, so that the next
// response begins with those that had to wait.
func (s *fetchSession) rotate(p *fetchPartition) {
	if s.last != p {
		s.unlink(p)
		s.append(p)
	}
}

// sessionCache holds the incremental fetch sessions of a node. Both its slots
// and the partitions in all of them are bounded; a fetch that finds no room is
// answered without a session, which is always legal.
type sessionCache struct {
	slots      int // max.incremental.fetch.session.cache.slots
	partitions int // bound over all sessions

	mu       sync.Mutex // guards the fields below
	sessions map[int32]*fetchSession
	held     int // partitions charged by the sessions
}

func newSessionCache(slots, partitions int) *sessionCache {
	return &sessionCache{slots: slots, partitions: partitions, sessions: make(map[int32]*fetchSession)}
}

// begin finds or makes the session that req means. A code other than 0 answers
// the whole request. The caller ends with finish, once, after the response.
func (c *sessionCache) begin(req *kmsg.FetchRequest, now time.Time) (*fetchSession, int16) {
	if req.SessionEpoch == initialSessionEpoch || req.SessionEpoch == finalSessionEpoch {
		if req.SessionID != 0 {
			c.remove(req.SessionID)
		}
		return newFetchSession(req), 0
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[req.SessionID]
	switch {
	case s == nil:
		return nil, kerr.FetchSessionIDNotFound.Code
	case s.epoch != req.SessionEpoch || s.inUse:
		return nil, kerr.InvalidFetchSessionEpoch.Code
	case s.byID != (req.Version >= 13):
		return nil, kerr.FetchSessionTopicIDError.Code
	}
	s.update(req)
	if len(s.partitions) == 0 || c.held+len(s.partitions)-s.charged > c.partitions {
		c.drop(s)
		s.id, s.incremental = 0, false
		return s, 0
	}
	c.held += len(s.partitions) - s.charged
	s.charged = len(s.partitions)
	s.inUse, s.used, s.incremental = true, now, true
	s.epoch = nextSessionEpoch(s.epoch)
	return s, 0
}

// establish gives the session of a full fetch a slot and an id, if the client
// asked for one and there is room. It is called before the response is written
// because the response carries the id.
func (c *sessionCache) establish(s *fetchSession, req *kmsg.FetchRequest, now time.Time) {
	if s.incremental || s.id != 0 || req.Version < 7 || req.SessionEpoch != initialSessionEpoch || len(s.partitions) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held+len(s.partitions) > c.partitions || len(c.sessions) >= c.slots && !c.evict(now) {
		return
	}
	for s.id == 0 || c.sessions[s.id] != nil {
		s.id = rand.Int32N(math.MaxInt32-1) + 1
	}
	s.epoch = nextSessionEpoch(initialSessionEpoch)
	s.inUse, s.used, s.charged = true, now, len(s.partitions)
	c.held += s.charged
	c.sessions[s.id] = s
}

// finish gives the session back.
func (c *sessionCache) finish(s *fetchSession) {
	if s.id == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.inUse = false
}

// evict frees the slot of the session that was idle the longest, if long enough.
func (c *sessionCache) evict(now time.Time) bool {
	var oldest *fetchSession
	for _, s := range c.sessions {
		if !s.inUse && (oldest == nil || s.used.Before(oldest.used)) {
			oldest = s
		}
	}
	if oldest == nil || now.Sub(oldest.used) < sessionIdle {
		return false
	}
	c.drop(oldest)
	return true
}

func (c *sessionCache) remove(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		c.drop(s)
	}
}

func (c *sessionCache) drop(s *fetchSession) {
	delete(c.sessions, s.id)
	c.held -= s.charged
	s.charged = 0
}

// count is the number of sessions held.
func (c *sessionCache) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sessions)
}

func nextSessionEpoch(epoch int32) int32 {
	if epoch == math.MaxInt32 {
		return 1
	}
	return epoch + 1
}
