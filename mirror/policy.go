package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/topology"
)

// Most of what goes wrong is met in two places: while a partition is taken over
// (see takeover), and here, while it flows. What is beside the partitions
// (topics, configs) is topicSync's.

// haltError says that a policy stops a partition: somebody has to decide. Its
// kind is what the operator can accept.
type haltError struct{ kind, what string }

func (e *haltError) Error() string { return e.what }

// halts are the partitions that wait for an operator's word because of what
// happened while they flowed. A takeover finds its own reasons again at every
// attempt; these would be forgotten with the attempt that met them. They are
// kept for as long as this instance carries the flow: where another takes over,
// or the process starts anew, the partition goes on until it happens again.
type halts struct {
	mu sync.Mutex // guards at
	at map[partitionID]*haltError
}

// halt makes a partition wait for an operator's word.
func (h *halts) halt(id partitionID, err *haltError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.at == nil {
		h.at = map[partitionID]*haltError{}
	}
	h.at[id] = err
}

// halted says why a partition waits for an operator's word, nil if it does not,
// or if the operator accepted the reason meanwhile, or mirror.yaml does now.
func (f *flow) halted(id partitionID) error {
	f.halts.mu.Lock()
	defer f.halts.mu.Unlock()
	err := f.halts.at[id]
	if err == nil {
		return nil
	}
	lifted := err.kind == KindForeignWrite && f.cfg().PoliciesFor(id.Topic).ForeignWrites != topology.ForeignStop
	if lifted || f.accepted(id, err.kind) {
		delete(f.halts.at, id)
		return nil
	}
	return err
}

// foreign deals with target offsets [from, to) that something else wrote between
// records of ours. It runs on the appender's goroutine.
func (f *flow) foreign(id partitionID, target string, l *lane, from, to int64) {
	policy := f.cfg().PoliciesFor(id.Topic).ForeignWrites
	if policy == topology.ForeignIgnore {
		return
	}
	in := about(id, KindForeignWrite, fmt.Sprintf("something else writes to target %s/%d", target, id.Partition), "both stay; offsets are translated across it")
	in.TargetOffset, in.Count = from, to-from
	if policy == topology.ForeignStop {
		in.Action = fmt.Sprintf("stopped, by policy; to go on: kmirror resume '%s' %s --partition %d --accept %s", id.Flow, id.Topic, id.Partition, KindForeignWrite)
		halt := &haltError{KindForeignWrite, in.Detail + fmt.Sprintf(" (offsets %d to %d); ", from, to-1) + in.Action}
		f.halts.halt(id, halt)
		l.fault(halt)
	}
	f.incidents.Record(in)
}

// tooLarge deals with one record that the target topic does not take: the error
// it returns ends the attempt.
func (t *tenure) tooLarge(ctx context.Context, target string, large *recordTooLargeError) error {
	f := t.flow
	in := about(t.id, KindRecordTooLarge, fmt.Sprintf("source record %s/%d at %d takes %d bytes as a batch of its own, and target topic %s takes %d", t.id.Topic, t.id.Partition, large.offset, large.size, target, large.limit), "")
	in.SourceOffset, in.Count = large.offset, 1
	if f.cfg().PoliciesFor(t.id.Topic).RecordTooLarge != topology.TooLargeRaise {
		in.Action = fmt.Sprintf("the partition is parked, by policy; raise %s of %s, or set record_too_large: raise or dead_letter", maxMessageBytes, target)
		f.incidents.Record(in)
		return large
	}
	if limit, err := t.maxMessageBytes(ctx, target); err == nil && limit >= large.size {
		// It was raised already, and the leader refuses all the same: it may not have
		// heard of it yet. Nothing larger is asked for; the next attempt tries again.
		t.mu.Lock()
		t.maxBatch, t.told = limit, limit
		t.mu.Unlock()
		return &waitError{fmt.Sprintf("target topic %s says that it takes %d bytes and refused %d (source offset %d)", target, limit, large.size, large.offset)}
	}
	need := roundLimit(large.size)
	if err := f.raise(ctx, target, need); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		in.Action = fmt.Sprintf("the partition is parked: %v; grant ALTER_CONFIGS on the topic, raise it by hand, or set record_too_large: dead_letter", err)
		f.incidents.Record(in)
		return large
	}
	in.Action = fmt.Sprintf("raised %s of %s to %d", maxMessageBytes, target, need)
	f.incidents.Record(in)
	t.log.Warn("the target topic's limit is raised for a large record", slog.Int64("offset", large.offset), slog.Int(maxMessageBytes, need))
	return &raisedError{fmt.Sprintf("the limit of target topic %s is raised to %d bytes for the record at source offset %d", target, need, large.offset)}
}

// raisedError ends an attempt whose obstacle was removed: the next one begins soon.
type raisedError struct{ what string }

func (e *raisedError) Error() string { return e.what }

// raise raises the limit of a target topic.
func (f *flow) raise(ctx context.Context, topic string, limit int) error {
	if err := f.target.AlterTopicConfigs(ctx, topic, map[string]string{maxMessageBytes: strconv.Itoa(limit)}, nil); err != nil {
		return fmt.Errorf("raise %s of %s to %d: %w", maxMessageBytes, topic, limit, err)
	}
	return nil
}

// roundLimit rounds a size up, so that not every record raises the limit again.
func roundLimit(size int) int {
	const step = 64 << 10
	return (size + size/16 + step - 1) / step * step
}

func tooLargeForTarget(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// chronicle records what ended an attempt, as far as it is an incident and
// nobody has recorded it yet.
func (f *flow) chronicle(id partitionID, err error) {
	var batch *batchError
	var doubt *doubtError
	var buried *letterError
	var unfenced *unfencedError
	switch {
	case errors.As(err, &unfenced):
		f.incidents.Record(about(id, KindFenceWaits, err.Error(), "waits, and goes on by itself when the target's transaction coordinator answers"))
	case errors.As(err, &buried) && tooLargeForTarget(err):
		in := about(id, KindRecordTooLarge, err.Error(), "the partition is parked until the dead-letter topic takes it")
		in.SourceOffset, in.Count = buried.offset, 1
		f.incidents.Record(in)
	case unauthorized(err):
		f.incidents.Record(about(id, KindAuthorization, err.Error(), "waits, and goes on by itself when the right is given back"))
	case errors.As(err, &batch):
		in := about(id, KindCorruptBatch, err.Error(), "nothing of it is written; it is read again and again, for it may have been damaged on the way")
		in.SourceOffset = batch.offset
		f.incidents.Record(in)
	case errors.Is(err, kerr.CorruptMessage):
		f.incidents.Record(about(id, KindCorruptBatch, err.Error(), "it is read and sent again"))
	case errors.As(err, &doubt):
		f.incidents.Record(about(id, KindPositionDoubt, err.Error(), "the position is read off the target again"))
	}
}

func unauthorized(err error) bool {
	for _, e := range []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.GroupAuthorizationFailed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// refusing is a target that refuses a partition's batches again and again.
type refusing struct{ told bool }

// observe notes an incident when the target's disk is why a lane does not flow,
// once for each time that it stops.
func (r *refusing) observe(f *flow, id partitionID, l *lane) {
	why, times := l.refusedFor()
	switch {
	case times == 0:
		r.told = false
	case times >= toldRefusals && !r.told && strings.Contains(why, kerr.KafkaStorageError.Message):
		r.told = true
		f.incidents.Record(about(id, KindOutOfDisk, why, "waits, and goes on by itself when the target stores again"))
	}
}

// refusedFor is why the target refused the lane's batch the last time, and how
// often in a row.
func (l *lane) refusedFor() (why string, times int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusal, l.refusals
}

// treatment is how records of a topic are treated on their way, as mirror.yaml
// has it now.
type treatment struct {
	cfg     *topology.Flow
	filter  *topology.Filter
	letters bool
	circles bool // batches are left out by who wrote them
}

// treat brings a treatment up to date; it costs nothing while mirror.yaml stays
// the same. It is called under a lock of the owner's.
func (x *treatment) treat(cfg *topology.Flow, topic string) {
	if x.cfg == cfg {
		return
	}
	*x = treatment{cfg, cfg.FilterFor(topic), cfg.PoliciesFor(topic).RecordTooLarge == topology.TooLargeDeadLetter, cfg.BreaksLoop(topic)}
}
