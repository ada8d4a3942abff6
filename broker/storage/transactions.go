package storage

import "github.com/twmb/franz-go/pkg/kerr"

// AbortedTransaction is what a read_committed fetch response tells of one:
// from FirstOffset on the producer's records are to be skipped, up to its
// abort marker.
type AbortedTransaction struct {
	ProducerID  int64
	FirstOffset int64
}

// Guard stands for the verification of a transaction with its coordinator
// (KIP-890, KAFKA-14402). The zero Guard verifies nothing. One that a marker or
// a transactional batch of the producer has overtaken is worth nothing any more.
type Guard struct{ number uint64 }

// AppendMarker writes the control batch that ends a producer's transaction
// here, whether it wrote anything or not, and returns its offset; it is readable
// and safe once WaitDurable has passed that. From then on the producer's next
// batch has at least the marker's epoch, and sequence 0 if that is a new one.
//
// Refusals are *Error: INVALID_PRODUCER_EPOCH for an epoch below the producer's
// (see Marker.TransactionVersion), TRANSACTION_COORDINATOR_FENCED for a
// coordinator epoch below the last one's.
func (l *Log) AppendMarker(m Marker, leaderEpoch int32) (offset int64, err error) {
	cfg := l.config.Load()
	now := l.store.o.Now().UnixMilli()
	b, err := m.encode(now)
	if err != nil {
		return -1, &Error{Code: kerr.UnknownServerError.Code, Message: "encode a marker for " + l.name.String(), Err: err}
	}
	if cfg.LogAppendTime {
		b.SetLogAppendTime(now)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.writable(leaderEpoch); err != nil {
		return -1, err
	}
	if refusal := l.producers.checkMarker(m, l.name); refusal != nil {
		return -1, refusal
	}
	if err := l.place(b, leaderEpoch, cfg, now); err != nil {
		return -1, err
	}
	if t, ended := l.producers.end(m, b.BaseOffset(), b.MaxTimestamp(), now); ended && !m.Commit {
		l.active.noteAborted(t)
	}
	l.unsafe.Store(len(l.producers.decided) > 0)
	l.account(b, cfg)
	return b.BaseOffset(), nil
}

// BeginVerification precedes asking the transaction coordinator whether the
// partition belongs to a transaction of the producer. needed is false when it is
// known here to be ongoing in that epoch: there is nothing to ask. Otherwise the
// Guard goes into AppendOptions.Verified after the coordinator said yes; the
// append is refused if the transaction ended meanwhile. sequence is the batch's
// first; bumps says that the producer speaks transaction version 2.
//
// An epoch below the producer's is INVALID_PRODUCER_EPOCH (*Error).
func (l *Log) BeginVerification(producerID int64, epoch int16, sequence int32, bumps bool) (g Guard, needed bool, err error) {
	now := l.store.o.Now().UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	g, needed, refusal := l.producers.verify(producerID, epoch, sequence, bumps, now, l.name)
	if refusal != nil {
		return g, false, refusal
	}
	return g, needed, nil
}

// Ongoing says whether a transaction of the producer is open here, in which
// epoch, and where it began.
func (l *Log) Ongoing(producerID int64) (epoch int16, firstOffset int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.producers.byID[producerID]
	if p == nil || p.transactionFirst < 0 {
		return -1, -1, false
	}
	return p.epoch, p.transactionFirst, true
}

// LastStableOffset is the offset below which every transaction is decided and
// its marker safe; never above the high watermark. It is the end of what
// read_committed sees.
func (l *Log) LastStableOffset() int64 {
	high := l.high.offset.Load() // before the look at transactions: none begins below it any more
	return max(min(high, l.unstable.Load()), l.start.Load())
}
