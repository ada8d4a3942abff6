package broker

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// Fetch: v4-18
//
// Behavior: reads up to the high watermark, or with read_committed up to the
// last stable offset, and then tells which transactions in what it read were
// aborted. Parks until MinBytes are there or MaxWait has
// passed, woken by the high watermarks of the partitions asked for; an error or
// a diverging epoch answers at once. The first batch comes whole even when it
// is larger than every limit. Records go from the segment to the socket by
// sendfile (fetch_response.go). Sessions are in fetch_session.go. A follower's
// fetch is refused per partition: this node has none.
//
// Version notes:
//   - v4: isolation level, last stable offset, aborted transactions (KIP-98)
//   - v5: log start offset (KIP-107)
//   - v7: incremental sessions (KIP-227)
//   - v9: current leader epoch, FENCED_LEADER_EPOCH and UNKNOWN_LEADER_EPOCH (KIP-320)
//   - v10: zstd (KIP-110); before, a topic with compression.type=zstd is UNSUPPORTED_COMPRESSION_TYPE
//   - v11: rack id, preferred read replica (KIP-392)
//   - v12: flexible; the epoch last read goes in, a diverging epoch comes out (KIP-595)
//   - v13: topics by id (KIP-516)
//   - v15: replica id moves to a tag (KIP-903)
//   - v16: leader endpoints on NOT_LEADER_OR_FOLLOWER (KIP-951); a single node has no other
//   - v17, v18: for followers of other brokers

const readCommitted = 1 // an isolation level

// fetched is what one partition's entry in the response says.
type fetched struct {
	partition *fetchPartition
	topic     string

	code                    int16
	highWatermark, logStart int64 // -1 with an error
	lastStable              int64
	aborted                 []storage.AbortedTransaction // only for read_committed
	divergingEpoch          int32                        // -1: the client's log agrees with ours
	divergingEnd            int64
	leader, leaderEpoch     int32 // told when the client's epoch is wrong; -1 otherwise
	slice                   storage.Slice
	bytes                   int // of slice, 0: none
}

// fetchReader reads the partitions of one fetch. It belongs to a connection
// and is used again for its next fetch.
type fetchReader struct {
	results []fetched
	logs    []*storage.Log // of the partitions without an error
	bytes   int
	at      bool // an entry demands an answer at once
}

func (f *fetchReader) release() {
	for i := range f.results {
		if f.results[i].bytes > 0 {
			f.results[i].slice.Release()
		}
	}
	clear(f.results)
	clear(f.logs)
	f.results, f.logs, f.bytes, f.at = f.results[:0], f.logs[:0], 0, false
}

func (n *Node) fetch(ctx context.Context, r *request) error {
	req := kmsg.NewPtrFetchRequest()
	if err := r.decode(ctx, req); err != nil {
		return err
	}
	session, code := n.sessions.begin(req, r.started)
	if code != 0 {
		r.note(code)
		return r.conn.respondFetch(r, &fetchResponse{version: r.Version, code: code})
	}
	defer n.sessions.finish(session)

	f := &r.conn.fetch
	defer f.release()
	if err := n.readFetch(ctx, req, session, f); err != nil {
		return err
	}
	n.sessions.establish(session, req, r.started)

	resp := &fetchResponse{version: r.Version, sessionID: session.id, committed: req.IsolationLevel == readCommitted}
	for i := range f.results {
		e := &f.results[i]
		r.note(e.code)
		must := e.partition.answered(e.code != 0 || e.divergingEpoch >= 0, e.bytes > 0, e.highWatermark, e.logStart)
		if must || !session.incremental {
			resp.entries = append(resp.entries, e)
		}
		if e.bytes > 0 && session.incremental {
			session.rotate(e.partition)
		}
	}
	return r.conn.respondFetch(r, resp)
}

// readFetch fills f, waiting for records as long as the client allows.
func (n *Node) readFetch(ctx context.Context, req *kmsg.FetchRequest, session *fetchSession, f *fetchReader) error {
	wait := time.Duration(req.MaxWaitMillis) * time.Millisecond
	enough := func() bool {
		return f.at || f.bytes >= int(req.MinBytes) || wait <= 0 || len(f.results) == 0
	}
	n.collect(req, session, f)
	if enough() {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	waiter := storage.NewWaiter()
	watched := slices.Clone(f.logs)
	for _, log := range watched {
		log.Watch(waiter)
		defer log.Unwatch(waiter)
	}
	for {
		f.release()
		n.collect(req, session, f) // again: something may have come before the waiter stood
		if enough() {
			return nil
		}
		select {
		case <-waiter.C:
		case <-timer.C:
			wait = 0
		case <-ctx.Done():
			return nil // draining: answer with what there is
		}
		if wait == 0 {
			return nil
		}
	}
}

// collect reads every partition of the session once, in its order.
func (n *Node) collect(req *kmsg.FetchRequest, session *fetchSession, f *fetchReader) {
	left := int(min(req.MaxBytes, n.limits.FetchBytes))
	for p := session.first; p != nil; p = p.next {
		f.results = append(f.results, fetched{partition: p, highWatermark: -1, logStart: -1, lastStable: -1, divergingEpoch: -1, leader: -1, leaderEpoch: -1})
		e := &f.results[len(f.results)-1]
		if err := n.collectOne(req, session, f, e, left); err != nil {
			e.code, _ = errorCode(err)
			e.highWatermark, e.logStart, e.lastStable = -1, -1, -1
			f.at = true
		}
		left = max(0, left-e.bytes)
		f.bytes += e.bytes
	}
}

func (n *Node) collectOne(req *kmsg.FetchRequest, session *fetchSession, f *fetchReader, e *fetched, left int) error {
	p := e.partition
	e.topic = p.key.topic
	topic, err := n.topicFor(session.byID, p.key.topic, p.key.id)
	if err != nil {
		return err
	}
	e.topic = topic.Name
	log, epoch, err := n.leading(topic, p.key.partition)
	if err != nil {
		return err
	}
	if req.ReplicaID >= 0 || req.ReplicaState.ID >= 0 {
		return refuse(kerr.NotLeaderForPartition, "")
	}
	if err := checkEpoch(p.leaderEpoch, epoch); err != nil {
		e.leader, e.leaderEpoch = n.id, epoch
		return err
	}
	if p.fetchedEpoch >= 0 {
		at, end := log.EpochEnd(p.fetchedEpoch)
		if at < 0 || end < 0 {
			return refuse(kerr.OffsetOutOfRange, "")
		}
		if at < p.fetchedEpoch || end < p.offset {
			e.divergingEpoch, e.divergingEnd = at, end
			e.highWatermark, e.logStart, e.lastStable = log.HighWatermark(), log.Start(), log.LastStableOffset()
			f.at = true
			return nil
		}
	}
	e.lastStable = log.LastStableOffset() // first, so that it is not above the high watermark
	e.highWatermark, e.logStart = log.HighWatermark(), log.Start()
	end := e.highWatermark
	if req.IsolationLevel == readCommitted {
		end = e.lastStable
	}
	if p.offset < e.logStart || p.offset > log.End() {
		return refuse(kerr.OffsetOutOfRange, "")
	}
	if req.Version < 10 && log.Config().Compression == wire.CodecZstd.String() {
		return refuse(kerr.UnsupportedCompressionType, "")
	}
	f.logs = append(f.logs, log)
	minOne := f.bytes == 0
	limit := min(int(p.maxBytes), left)
	if p.offset >= end || limit <= 0 && !minOne {
		return nil
	}
	slice, aborted, err := readIsolated(log, p.offset, max(limit, 0), minOne, req.IsolationLevel == readCommitted, end)
	if err != nil {
		return err
	}
	if slice.Len == 0 {
		slice.Release()
		return nil
	}
	e.slice, e.bytes, e.aborted = slice, slice.Len, aborted
	if req.IsolationLevel == readCommitted { // it may have moved: what is told covers what is sent
		e.lastStable = log.LastStableOffset()
		e.highWatermark = log.HighWatermark()
	}
	return nil
}

// readIsolated reads up to the last stable offset, or else up to end.
func readIsolated(log *storage.Log, offset int64, limit int, minOne, committed bool, end int64) (storage.Slice, []storage.AbortedTransaction, error) {
	if committed {
		return log.ReadCommitted(offset, limit, minOne)
	}
	slice, err := log.Read(offset, limit, minOne, end)
	return slice, nil, err
}

// checkEpoch compares the leader epoch a client knows with ours (KIP-320).
func checkEpoch(theirs, ours int32) error {
	switch {
	case theirs < 0 || theirs == ours:
		return nil
	case theirs < ours:
		return refuse(kerr.FencedLeaderEpoch, "")
	}
	return refuse(kerr.UnknownLeaderEpoch, "")
}
