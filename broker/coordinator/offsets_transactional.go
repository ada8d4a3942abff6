package coordinator

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// maxUndecided bounds the commits of one group that wait for the end of their
// transactions.
const maxUndecided = 200_000

// TxnProducer is whose transaction offsets are committed in. Verified is what
// the broker learned from the coordinator of transactions; it is handed back to
// the Log.
type TxnProducer struct {
	ID       int64
	Epoch    int16
	Verified any
}

// CommitTransactional takes a TxnOffsetCommit. The offsets are durable when the
// answer leaves; they count when the transaction is committed (KIP-98).
func (g *Group) CommitTransactional(t Ticket, req *kmsg.TxnOffsetCommitRequest, producer TxnProducer, now time.Time) []Effect {
	resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
	code := g.validateTransactional(req.MemberID, req.InstanceID, req.Generation)
	if code == 0 && len(g.undecided[producer.ID]) > maxUndecided {
		code = kerr.InvalidCommitOffsetSize.Code
	}
	FailTxnCommit(req, resp, code)
	if code != 0 {
		g.answer(t, resp)
		return g.take()
	}
	commits := make(map[topicPartition]offset)
	var records []wire.Record
	for i := range req.Topics {
		rt := &req.Topics[i]
		name := strings.Clone(rt.Topic)
		for j := range rt.Partitions {
			p := &rt.Partitions[j]
			g.lastOrder++
			o := offset{at: p.Offset, epoch: p.LeaderEpoch, committed: now.UnixMilli(), expires: -1, order: g.lastOrder}
			if req.Version < 2 {
				o.epoch = -1
			}
			if p.Metadata != nil {
				o.metadata = strings.Clone(*p.Metadata)
			}
			if len(o.metadata) > g.settings.OffsetMetadataMax {
				resp.Topics[i].Partitions[j].ErrorCode = kerr.OffsetMetadataTooLarge.Code
				continue
			}
			tp := topicPartition{name, p.Partition}
			commits[tp] = o
			records = append(records, g.offsetRecord(tp, o))
		}
	}
	if len(records) == 0 {
		g.answer(t, resp)
		return g.take()
	}
	for tp := range commits {
		g.unstored[tp]++
	}
	g.append(records, func(code int16, _ time.Time) {
		for tp, o := range commits {
			if g.unstored[tp]--; g.unstored[tp] == 0 {
				delete(g.unstored, tp)
			}
			if code == 0 {
				g.putUndecided(producer.ID, tp, o)
			}
		}
		if code != 0 {
			if code == kerr.MessageTooLarge.Code || code == kerr.RecordListTooLarge.Code {
				code = kerr.InvalidCommitOffsetSize.Code
			}
			resp.Topics = nil
			FailTxnCommit(req, resp, code)
		}
		g.answer(t, resp)
	})
	out := g.take()
	for i := range out { // the one append of this call
		if a, ok := out[i].(Append); ok {
			a.Producer = &producer
			out[i] = a
		}
	}
	return out
}

// validateTransactional is Kafka's ClassicGroup.validateOffsetCommit for a
// transaction: producers of old do not say which member they are.
func (g *Group) validateTransactional(memberID string, instance *string, generation int32) int16 {
	switch {
	case g.state == Dead:
		return kerr.CoordinatorNotAvailable.Code
	case generation < 0 && (g.state == Empty || memberID == "" && instance == nil):
		return 0
	}
	if code := g.validate(memberID, instance); code != 0 {
		return code
	}
	if generation != g.generation {
		return kerr.IllegalGeneration.Code
	}
	return 0
}

// FailTxnCommit fills resp with one error for every partition of req.
func FailTxnCommit(req *kmsg.TxnOffsetCommitRequest, resp *kmsg.TxnOffsetCommitResponse, code int16) {
	for i := range req.Topics {
		rt := &req.Topics[i]
		t := kmsg.NewTxnOffsetCommitResponseTopic()
		t.Topic = rt.Topic
		for j := range rt.Partitions {
			p := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			p.Partition, p.ErrorCode = rt.Partitions[j].Partition, code
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
}

func (g *Group) putUndecided(producer int64, tp topicPartition, o offset) {
	if g.undecided[producer] == nil {
		g.undecided[producer] = make(map[topicPartition]offset)
	}
	g.undecided[producer][tp] = o
}

// Undecided tells whether the group has commits of a producer's transaction that
// is not over.
func (g *Group) Undecided(producer int64) bool { return len(g.undecided[producer]) > 0 }

// unstable tells whether a transaction that is not over has a commit for tp.
func (g *Group) unstable(tp topicPartition) bool {
	for _, commits := range g.undecided {
		if _, ok := commits[tp]; ok {
			return true
		}
	}
	return false
}

// Decide ends a producer's transaction, whose marker stands in the group's
// partition: its commits count from now on, or never did. A commit that came
// after one of the transaction's stays.
func (g *Group) Decide(producer int64, commit bool) {
	for tp, o := range g.undecided[producer] {
		if have, ok := g.offsets[tp.topic][tp.partition]; commit && (!ok || have.order < o.order) {
			g.put(tp, o)
		}
	}
	delete(g.undecided, producer)
}
