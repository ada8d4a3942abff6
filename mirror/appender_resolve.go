package mirror

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/wire"
)

// resolve hands an answer's partitions to their lanes. A partition that the
// answer leaves out makes the whole connection unusable: its batch would be in
// doubt for ever.
func (a *appender) resolve(p *produced, body []byte) error {
	resp, err := wire.ReadProduce(p.version, body)
	if err != nil {
		return err
	}
	stale, acked, from := false, 0, 0
	for resp.Next() {
		at := resp.At()
		i := p.find(at, from)
		if i < 0 {
			continue
		}
		s := &p.lanes[i]
		s.done, from = true, i+1
		switch l := s.at.lane; {
		case at.ErrorCode == 0 && l.orphan():
		case at.ErrorCode == 0:
			acked++
			a.acknowledged(s.at, at.BaseOffset)
			l.starts(at.LogStart)
		default:
			a.metrics.failed("target", errorName(at.ErrorCode))
			stale = a.refused(s.at, kerr.ErrorForCode(at.ErrorCode), string(at.Message)) || stale
		}
		poke(s.at.lane.events)
	}
	if stale {
		a.stale()
	}
	a.count(time.Since(p.sent), acked)
	if err := resp.Err(); err != nil {
		return err
	}
	a.quota.heed(time.Now(), resp.ThrottleMillis())
	for i := range p.lanes {
		if s := &p.lanes[i]; !s.done {
			return fmt.Errorf("the answer has no word on %s/%d", s.at.lane.target, s.at.lane.partition)
		}
	}
	return nil
}

// find is where in the request the partition of an answer stands; brokers keep
// the order, so that is nearly always the next one.
func (p *produced) find(at *wire.ProducedPartition, from int) int {
	for n := range p.lanes {
		i := (from + n) % len(p.lanes)
		s := &p.lanes[i]
		if s.done || s.at.lane.partition != at.Partition {
			continue
		}
		if p.version >= 13 && s.at.lane.targetID == at.ID || p.version < 13 && s.at.lane.target == string(at.Topic) {
			return i
		}
	}
	return -1
}

func (a *appender) count(took time.Duration, acked int) {
	if a.seconds == nil {
		m := a.metrics.m
		a.seconds, a.acks = m.appendSeconds.WithLabelValues(a.metrics.flow), m.acks.WithLabelValues(a.metrics.flow)
	}
	a.seconds.Observe(took.Seconds())
	a.acks.Add(float64(acked))
}

func (a *appender) acknowledged(x *appending, base int64) {
	if x.lane.rewound() {
		// The earlier batch was appended all the same (NOT_ENOUGH_REPLICAS_AFTER_APPEND,
		// a time-out of the replicas), or this one could not have been. Both are sent
		// again, and the broker answers with the offsets they have.
		x.lane.refuse(time.Now())
		return
	}
	runs, foreign, ok := x.lane.ack(base)
	if !ok {
		x.lane.doubt()
		x.lane.refuse(time.Now())
		x.lane.fault(&doubtError{fmt.Sprintf("the target acknowledged offset %d, below the end of what it had acknowledged before: it has lost records", base)})
		return
	}
	x.acked(runs, foreign, base)
	x.lane.recorded()
	if x.settled != nil {
		x.settled()
	}
}

// refused deals with the error of one batch. It says whether the metadata may
// be stale.
func (a *appender) refused(x *appending, err error, text string) bool {
	e, _ := err.(*kerr.Error) //nolint:errorlint // it comes bare; an unknown code is none
	if e == nil || !certain(e) {
		x.lane.doubt()
	}
	if x.lane.orphan() {
		return false
	}
	follows := x.lane.rewound() // a consequence of an earlier refusal in the same window
	switch {
	case e == nil:
		x.lane.refuse(time.Now())
		x.lane.fault(&targetError{err, text})
		return false
	case follows && (e == kerr.OutOfOrderSequenceNumber || retriableProduce(e)):
		x.lane.refuse(time.Now())
		return false
	case retriableProduce(e):
		x.lane.refuseLater(time.Now(), (&targetError{err, text}).Error())
		return leaderMoved(e)
	case e == kerr.InvalidProducerEpoch, e == kerr.ProducerFenced:
		x.lane.refuse(time.Now())
		x.lane.fault(&fencedError{cause: &targetError{err, text}})
		return false
	case e == kerr.DuplicateSequenceNumber, e == kerr.OutOfOrderSequenceNumber, e == kerr.UnknownProducerID:
		x.lane.refuse(time.Now())
		x.lane.fault(&doubtError{"the target answered " + e.Message})
		return false
	default:
		x.lane.refuse(time.Now())
		x.lane.fault(&targetError{err, text})
		return false
	}
}

// certain says that a batch answered with e was not appended, whatever else is
// true. NOT_LEADER_OR_FOLLOWER is not among these: a leader that is deposed while
// it waits for its replicas says so too.
func certain(e *kerr.Error) bool {
	switch e {
	case kerr.OutOfOrderSequenceNumber, kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.NotEnoughReplicas,
		kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.CorruptMessage, kerr.InvalidRecord, kerr.InvalidTimestamp,
		kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.UnsupportedForMessageFormat,
		kerr.UnsupportedCompressionType, kerr.PolicyViolation, kerr.InvalidTopicException,
		kerr.InvalidRequiredAcks:
		return true
	}
	return false
}
