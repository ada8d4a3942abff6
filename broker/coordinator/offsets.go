package coordinator

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// Commit takes an OffsetCommit. The offsets count, and the answer leaves,
// when their records are durable.
func (g *Group) Commit(t Ticket, req *kmsg.OffsetCommitRequest, now time.Time) []Effect {
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	if code := g.validateCommit(req.MemberID, req.InstanceID, req.Generation); code != 0 {
		FailCommit(req, resp, code)
		g.answer(t, resp)
		return g.take()
	}
	if m := g.member(req.MemberID); m != nil && (g.state == Stable || g.state == PreparingRebalance) {
		g.keepAlive(m, now) // a commit is as good as a heartbeat
	}
	expires := int64(-1)
	if req.Version <= 4 && req.RetentionTimeMillis >= 0 {
		expires = now.UnixMilli() + req.RetentionTimeMillis
	}
	type commit struct {
		tp topicPartition
		offset
	}
	var commits []commit
	var records []wire.Record
	FailCommit(req, resp, 0)
	for i := range req.Topics {
		rt := &req.Topics[i]
		name := strings.Clone(rt.Topic)
		for j := range rt.Partitions {
			p := &rt.Partitions[j]
			o := offset{at: p.Offset, epoch: p.LeaderEpoch, committed: now.UnixMilli(), expires: expires}
			if req.Version < 6 {
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
			g.lastOrder++
			o.order = g.lastOrder
			commits = append(commits, commit{tp, o})
			records = append(records, g.offsetRecord(tp, o))
			g.unstored[tp]++
		}
	}
	if len(records) == 0 {
		g.answer(t, resp)
		return g.take()
	}
	g.append(records, func(code int16, _ time.Time) {
		for _, c := range commits {
			if g.unstored[c.tp]--; g.unstored[c.tp] == 0 {
				delete(g.unstored, c.tp)
			}
			if code == 0 {
				g.put(c.tp, c.offset)
			}
		}
		if code != 0 {
			if code == kerr.MessageTooLarge.Code || code == kerr.RecordListTooLarge.Code {
				code = kerr.InvalidCommitOffsetSize.Code
			}
			resp.Topics = nil
			FailCommit(req, resp, code)
		}
		g.answer(t, resp)
	})
	return g.take()
}

// validateCommit is Kafka's ClassicGroup.validateOffsetCommit.
func (g *Group) validateCommit(memberID string, instance *string, generation int32) int16 {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable.Code
	}
	if generation < 0 && g.state == Empty { // an administrator, or a consumer that assigns itself
		return 0
	}
	if generation < 0 && memberID == "" && instance == nil {
		return kerr.UnknownMemberID.Code
	}
	if code := g.validate(memberID, instance); code != 0 {
		return code
	}
	if generation != g.generation {
		return kerr.IllegalGeneration.Code
	}
	if g.state == CompletingRebalance {
		return kerr.RebalanceInProgress.Code
	}
	return 0
}

// FailCommit fills resp with one error for every partition of req.
func FailCommit(req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, code int16) {
	for i := range req.Topics {
		rt := &req.Topics[i]
		t := kmsg.NewOffsetCommitResponseTopic()
		t.Topic, t.TopicID = rt.Topic, rt.TopicID
		for j := range rt.Partitions {
			p := kmsg.NewOffsetCommitResponseTopicPartition()
			p.Partition, p.ErrorCode = rt.Partitions[j].Partition, code
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
}

// CommittedOffset is one durable commit. LeaderEpoch is -1 when not known.
type CommittedOffset struct {
	Offset      int64
	LeaderEpoch int32
	Metadata    string
}

// Committed is the durable commit for a partition.
func (g *Group) Committed(topic string, partition int32) (CommittedOffset, bool) {
	o, ok := g.offsets[topic][partition]
	if !ok || g.state == Dead {
		return CommittedOffset{Offset: -1, LeaderEpoch: -1}, false
	}
	return CommittedOffset{o.at, o.epoch, o.metadata}, true
}

// CommittedPartitions are the topics and partitions with a durable commit, sorted.
func (g *Group) CommittedPartitions(fn func(topic string, partitions []int32)) {
	if g.state == Dead {
		return
	}
	for _, topic := range sortedKeys(g.offsets) {
		fn(topic, slices.Sorted(maps.Keys(g.offsets[topic])))
	}
}

// DeleteOffsets takes an OffsetDelete: offsets of topics that a member
// subscribes to stay.
func (g *Group) DeleteOffsets(t Ticket, req *kmsg.OffsetDeleteRequest, now time.Time) []Effect {
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	consumer := g.protocolType != nil && *g.protocolType == "consumer"
	switch {
	case g.state == Dead:
		resp.ErrorCode = kerr.GroupIDNotFound.Code
	case g.state != Empty && !consumer:
		resp.ErrorCode = kerr.NonEmptyGroup.Code
	}
	if resp.ErrorCode != 0 {
		g.answer(t, resp)
		return g.take()
	}
	var drop []topicPartition
	for i := range req.Topics {
		rt := kmsg.NewOffsetDeleteResponseTopic()
		rt.Topic = req.Topics[i].Topic
		for _, p := range req.Topics[i].Partitions {
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
			rp.Partition = p.Partition
			tp := topicPartition{strings.Clone(rt.Topic), p.Partition}
			if g.subscribes(rt.Topic) {
				rp.ErrorCode = kerr.GroupSubscribedToTopic.Code
			} else if g.holds(tp) {
				drop = append(drop, tp)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	g.tombstone(drop, now, func(code int16, _ time.Time) {
		if code != 0 {
			resp.ErrorCode, resp.Topics = code, nil
		}
		g.answer(t, resp)
	})
	return g.take()
}

// subscribes tells whether a member reads the topic; if that cannot be known
// of a consumer group, it may.
func (g *Group) subscribes(topic string) bool {
	if g.subscribed == nil {
		return g.protocolType != nil && *g.protocolType == "consumer"
	}
	return g.subscribed[topic]
}

// holds tells that the log has, or is about to have, a commit.
func (g *Group) holds(tp topicPartition) bool {
	_, ok := g.offsets[tp.topic][tp.partition]
	return ok || g.unstored[tp] > 0 || g.unstable(tp)
}

// tombstone removes offsets from the log, then from memory, then runs done;
// at once if there are none.
func (g *Group) tombstone(drop []topicPartition, now time.Time, done func(code int16, now time.Time)) {
	if len(drop) == 0 {
		done(0, now)
		return
	}
	var records []wire.Record
	for _, tp := range drop {
		records = append(records, g.offsetTombstone(tp, now))
	}
	g.append(records, func(code int16, now time.Time) {
		if code == 0 {
			for _, tp := range drop {
				g.forget(tp)
			}
		}
		done(code, now)
	})
}

// DropTopic forgets the offsets for a deleted topic.
func (g *Group) DropTopic(topic string, now time.Time) []Effect {
	return g.dropTopics(func(t string) bool { return t == topic }, now)
}

func (g *Group) dropTopics(gone func(topic string) bool, now time.Time) []Effect {
	if g.state == Dead {
		return nil
	}
	g.tombstone(g.held(func(tp topicPartition) bool { return gone(tp.topic) }), now, func(int16, time.Time) {})
	return g.take()
}

// Delete takes a DeleteGroups for this group and answers t with a response
// that holds the one result.
func (g *Group) Delete(t Ticket, version int16, now time.Time) []Effect {
	var code int16
	switch g.state {
	case Dead:
		code = kerr.GroupIDNotFound.Code
	case Stable, PreparingRebalance, CompletingRebalance:
		code = kerr.NonEmptyGroup.Code
	case Empty:
	}
	if code != 0 {
		g.answer(t, deleteResponse(version, g.id, code))
		return g.take()
	}
	g.erase(g.held(nil), now, func(code int16) { g.answer(t, deleteResponse(version, g.id, code)) })
	return g.take()
}

// erase deletes an empty group with its offsets.
func (g *Group) erase(offsets []topicPartition, now time.Time, done func(code int16)) {
	var records []wire.Record
	for _, tp := range offsets {
		records = append(records, g.offsetTombstone(tp, now))
	}
	records = append(records, g.metadataTombstone(now))
	since := g.stateSince
	g.become(Dead, now)
	clear(g.pendingJoin)
	g.append(records, func(code int16, _ time.Time) {
		if code == 0 {
			clear(g.offsets)
			clear(g.undecided)
			g.gone = true
		} else {
			g.state, g.stateSince = Empty, since
		}
		done(code)
	})
}

func deleteResponse(version int16, group string, code int16) *kmsg.DeleteGroupsResponse {
	resp := kmsg.NewPtrDeleteGroupsResponse()
	resp.Version = version
	r := kmsg.NewDeleteGroupsResponseGroup()
	r.Group, r.ErrorCode = group, code
	resp.Groups = append(resp.Groups, r)
	return resp
}

// Expire removes the offsets that retention has passed, and the group itself
// when it is empty and nothing is left:
//   - a simple group: since the commit;
//   - an empty group: since it became empty;
//   - a stable consumer group: since the commit, for topics nobody subscribes to.
func (g *Group) Expire(now time.Time) []Effect {
	consumer := g.protocolType != nil && *g.protocolType == "consumer"
	var since func(offset) int64
	switch {
	case g.state == Dead || len(g.unstored) > 0:
		return nil
	case g.protocolType == nil, g.state == Empty && g.stateSince < 0:
		since = func(o offset) int64 { return o.committed }
	case g.state == Empty:
		since = func(offset) int64 { return g.stateSince }
	case g.state == Stable && consumer && g.subscribed != nil:
		since = func(o offset) int64 { return o.committed }
	default:
		return nil
	}
	ms := now.UnixMilli()
	expired := g.held(func(tp topicPartition) bool {
		o, ok := g.offsets[tp.topic][tp.partition]
		if !ok || g.unstable(tp) || g.subscribes(tp.topic) && g.state != Empty {
			return false
		}
		if o.expires >= 0 {
			return ms >= o.expires
		}
		return ms-since(o) >= g.settings.OffsetsRetention.Milliseconds()
	})
	total := 0
	for _, partitions := range g.offsets {
		total += len(partitions)
	}
	if g.state == Empty && len(expired) == total && len(g.pendingJoin) == 0 && len(g.appends) == 0 && len(g.undecided) == 0 {
		g.erase(expired, now, func(int16) {})
	} else {
		g.tombstone(expired, now, func(int16, time.Time) {})
	}
	return g.take()
}

// held are the partitions with a commit, durable or on its way, that match
// (nil: all), sorted.
func (g *Group) held(match func(topicPartition) bool) (tps []topicPartition) {
	seen := make(map[topicPartition]bool)
	add := func(tp topicPartition) {
		if !seen[tp] && (match == nil || match(tp)) {
			seen[tp] = true
			tps = append(tps, tp)
		}
	}
	for topic, partitions := range g.offsets {
		for p := range partitions {
			add(topicPartition{topic, p})
		}
	}
	for tp := range g.unstored {
		add(tp)
	}
	for _, commits := range g.undecided {
		for tp := range commits {
			add(tp)
		}
	}
	slices.SortFunc(tps, func(a, b topicPartition) int {
		if c := strings.Compare(a.topic, b.topic); c != 0 {
			return c
		}
		return int(a.partition) - int(b.partition)
	})
	return tps
}

func (g *Group) put(tp topicPartition, o offset) {
	if g.offsets[tp.topic] == nil {
		g.offsets[tp.topic] = make(map[int32]offset)
	}
	g.offsets[tp.topic][tp.partition] = o
}

func (g *Group) forget(tp topicPartition) {
	delete(g.offsets[tp.topic], tp.partition)
	if len(g.offsets[tp.topic]) == 0 {
		delete(g.offsets, tp.topic)
	}
	for producer, commits := range g.undecided {
		delete(commits, tp)
		if len(commits) == 0 {
			delete(g.undecided, producer)
		}
	}
}
