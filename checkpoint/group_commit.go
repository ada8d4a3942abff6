package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"kmirror/internal/kafka"
)

const commitsAtOnce = 16 // requests under way

// errMembers says that a commit was refused because the group has members.
var errMembers = errors.New("the group has members")

// errUnanswered says that a commit or a deletion is not in the answer: it may
// have been carried out.
var errUnanswered = errors.New("no answer about the partition")

// outcome is what became of a commit or a deletion: an error for the group, or
// for single partitions. Unsure: it may have been carried out all the same.
type outcome struct {
	err    error
	failed map[kafka.TopicPartition]error
	unsure bool
}

// of returns what became of one partition.
func (o outcome) of(at kafka.TopicPartition) (err error, unsure bool) {
	if failed, ok := o.failed[at]; ok {
		return failed, errors.Is(failed, errUnanswered)
	}
	return o.err, o.unsure
}

type (
	dueOffsets map[kafka.TopicPartition]GroupOffset
	dueGroups  map[string]dueOffsets
)

// commit commits offsets for many groups, several at once.
//
// An offset that bears a leader epoch is committed with the epoch that its
// partition has in this cluster now. A consumer takes the epoch for the last one
// it may have read: one from another cluster could be higher than all here, and
// the consumer would then take this cluster's metadata for old and wait for
// newer; or lower, and the place where that epoch ended here would pass for a
// truncated log. One that is not known now is left out: then nothing is checked.
func (g *groups) commit(ctx context.Context, due dueGroups) map[string]outcome {
	epochs := g.epochs(ctx, due)
	return g.atCoordinators(ctx, due, func(broker int32, name string) outcome {
		mine := make(dueOffsets, len(due[name]))
		for at, c := range due[name] {
			if c.Epoch >= 0 {
				c.Epoch = -1
				if epoch, known := epochs[at]; known {
					c.Epoch = epoch
				}
			}
			mine[at] = c
		}
		return g.commitAt(ctx, broker, name, mine)
	})
}

// atCoordinators has something done about every group that is due, at its coordinator.
func (g *groups) atCoordinators(ctx context.Context, due dueGroups, do func(broker int32, name string) outcome) map[string]outcome {
	all := make(map[string]outcome, len(due))
	by, faults := g.locate(ctx, slices.Collect(maps.Keys(due)))
	for name, err := range faults {
		all[name] = outcome{err: err}
	}
	var (
		each errgroup.Group
		mu   sync.Mutex // guards all
	)
	each.SetLimit(commitsAtOnce)
	for broker, names := range by {
		for _, name := range names {
			each.Go(func() error {
				result := do(broker, name)
				mu.Lock()
				defer mu.Unlock()
				all[name] = result
				return nil
			})
		}
	}
	_ = each.Wait() // none returns one
	for name, result := range all {
		g.moved(name, result.err)
	}
	return all
}

// epochs asks for the leader epochs of the partitions whose offsets bear one.
func (g *groups) epochs(ctx context.Context, due dueGroups) map[kafka.TopicPartition]int32 {
	wanted := map[string]bool{}
	for _, offsets := range due {
		for at, c := range offsets {
			if c.Epoch >= 0 {
				wanted[at.Topic] = true
			}
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	for name := range wanted {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	resp, err := ask[*kmsg.MetadataResponse](ctx, func(ctx context.Context) (kmsg.Response, error) { return g.cluster.Request(ctx, req) })
	if err != nil {
		return nil // the offsets matter more
	}
	epochs := make(map[kafka.TopicPartition]int32)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if t.Topic != nil && t.ErrorCode == 0 && p.ErrorCode == 0 && p.LeaderEpoch >= 0 {
				epochs[kafka.TopicPartition{Topic: *t.Topic, Partition: p.Partition}] = p.LeaderEpoch
			}
		}
	}
	return epochs
}

// commitAt commits as somebody outside the group, which a group with members
// refuses.
func (g *groups) commitAt(ctx context.Context, broker int32, group string, due dueOffsets) outcome {
	if g.avoided(broker) {
		return outcome{err: fmt.Errorf("commit offsets: broker %d does not answer", broker)}
	}
	resp, err := ask[*kmsg.OffsetCommitResponse](ctx, func(ctx context.Context) (kmsg.Response, error) {
		return g.cluster.RequestBroker(ctx, broker, commitRequest(group, due))
	})
	if err != nil {
		if ctx.Err() == nil {
			g.unanswered(broker)
		}
		return outcome{err: fmt.Errorf("commit offsets: %w", err), unsure: true}
	}
	result := outcome{failed: make(map[kafka.TopicPartition]error)}
	for at := range due {
		result.failed[at] = fmt.Errorf("commit offset of %s/%d: %w", at.Topic, at.Partition, errUnanswered)
	}
	tooLarge := make(dueOffsets)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			at := kafka.TopicPartition{Topic: t.Topic, Partition: p.Partition}
			if _, asked := due[at]; !asked {
				continue
			}
			err := kerr.ErrorForCode(p.ErrorCode)
			switch {
			case err == nil:
				delete(result.failed, at)
			case hasMembers(err):
				return outcome{err: errMembers}
			case errors.Is(err, kerr.OffsetMetadataTooLarge) && due[at].Metadata != "":
				tooLarge[at] = GroupOffset{Offset: due[at].Offset, Epoch: due[at].Epoch}
			case errors.Is(err, kerr.NotCoordinator), errors.Is(err, kerr.CoordinatorNotAvailable), errors.Is(err, kerr.CoordinatorLoadInProgress), errors.Is(err, kerr.GroupAuthorizationFailed):
				return outcome{err: fmt.Errorf("commit offsets: %w", err)}
			default:
				result.failed[at] = fmt.Errorf("commit offset of %s/%d: %w", at.Topic, at.Partition, err)
			}
		}
	}
	if len(tooLarge) == 0 {
		return result
	}
	rest := g.commitAt(ctx, broker, group, tooLarge) // the cluster allows less metadata: offsets matter more
	for at := range tooLarge {
		delete(result.failed, at)
		if err, _ := rest.of(at); err != nil {
			result.failed[at] = err
		}
	}
	result.unsure = rest.unsure
	return result
}

// hasMembers says whether a refusal means that the group has members. A KIP-848
// group answers as a classic one does, or with what its epochs say.
func hasMembers(err error) bool {
	for _, refusal := range []error{kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress, kerr.StaleMemberEpoch, kerr.FencedMemberEpoch, kerr.NonEmptyGroup, kerr.GroupSubscribedToTopic} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

func commitRequest(group string, due dueOffsets) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest() // generation -1 and no member
	req.Group = group
	topics := make(map[string][]kmsg.OffsetCommitRequestTopicPartition)
	for at, c := range due {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = at.Partition, c.Offset, c.Epoch, new(c.Metadata)
		topics[at.Topic] = append(topics[at.Topic], p)
	}
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic, t.Partitions = name, topics[name]
		slices.SortFunc(t.Partitions, func(a, b kmsg.OffsetCommitRequestTopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
		req.Topics = append(req.Topics, t)
	}
	return req
}

// remove deletes offsets of many groups (KIP-496), each only where the group
// has no members. A group that is left without offsets goes when the broker
// cleans up next.
func (g *groups) remove(ctx context.Context, due dueGroups) map[string]outcome {
	return g.atCoordinators(ctx, due, func(broker int32, name string) outcome { return g.removeAt(ctx, broker, name, due[name]) })
}

func (g *groups) removeAt(ctx context.Context, broker int32, group string, due dueOffsets) outcome {
	req := kmsg.NewPtrOffsetDeleteRequest()
	req.Group = group
	topics := make(map[string][]kmsg.OffsetDeleteRequestTopicPartition)
	for at := range due {
		topics[at.Topic] = append(topics[at.Topic], kmsg.OffsetDeleteRequestTopicPartition{Partition: at.Partition})
	}
	for name, partitions := range topics {
		req.Topics = append(req.Topics, kmsg.OffsetDeleteRequestTopic{Topic: name, Partitions: partitions})
	}
	resp, err := ask[*kmsg.OffsetDeleteResponse](ctx, func(ctx context.Context) (kmsg.Response, error) {
		return g.cluster.RequestBroker(ctx, broker, req)
	})
	if err != nil {
		return outcome{err: fmt.Errorf("delete offsets: %w", err), unsure: true}
	}
	switch err := kerr.ErrorForCode(resp.ErrorCode); {
	case err == nil, errors.Is(err, kerr.GroupIDNotFound):
	case hasMembers(err):
		return outcome{err: errMembers}
	default:
		return outcome{err: fmt.Errorf("delete offsets: %w", err)}
	}
	result := outcome{failed: make(map[kafka.TopicPartition]error)}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				result.failed[kafka.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = fmt.Errorf("delete offset of %s/%d: %w", t.Topic, p.Partition, err)
			}
		}
	}
	return result
}
