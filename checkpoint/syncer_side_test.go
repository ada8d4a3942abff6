package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// side is a cluster as a Syncer sees it, in memory: groups, and the records of
// internal topics. Its brokers are numbers 1 to brokers; whose a group is the length
// of its name says. It refuses commits to groups with
// members, as Kafka does. An error of fault fails a request, after it was
// carried out if done.
type side struct {
	mu       sync.Mutex
	groups   map[string]*sideGroup
	topics   map[string][]wire.Record
	epochs   map[string]int32 // leader epochs by topic
	requests map[int16]int
	logs     map[string][]wire.Batch // partition 0 of topics
	fetches  int
	ends     map[string]int64 // what ListOffset says
	brokers  int32
	silent   int32 // the broker that does not answer
	readOnly error // what appends fail with

	fault    func(req kmsg.Request) (done bool, err error)
	tamper   func(resp kmsg.Response)
	onCommit func(group string, at kafka.TopicPartition, before, after int64) // a commit of the Syncer, before it is carried out
}

type sideGroup struct {
	members bool
	offsets map[kafka.TopicPartition]checkpointed
}

type checkpointed struct {
	offset   int64
	epoch    int32
	metadata string
}

func newSide() *side {
	return &side{groups: map[string]*sideGroup{}, topics: map[string][]wire.Record{}, epochs: map[string]int32{}, requests: map[int16]int{}, logs: map[string][]wire.Batch{}, ends: map[string]int64{}, brokers: 1}
}

func (s *side) group(name string) *sideGroup {
	if s.groups[name] == nil {
		s.groups[name] = &sideGroup{offsets: map[kafka.TopicPartition]checkpointed{}}
	}
	return s.groups[name]
}

// commit is what a consumer does, or an administrator.
func (s *side) commit(group, topic string, partition int32, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.group(group).offsets[kafka.TopicPartition{Topic: topic, Partition: partition}] = checkpointed{offset: offset, epoch: -1}
}

func (s *side) at(group, topic string, partition int32) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.groups[group]; g != nil {
		if c, ok := g.offsets[kafka.TopicPartition{Topic: topic, Partition: partition}]; ok {
			return c.offset
		}
	}
	return -1
}

func (s *side) members(group string, some bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.group(group).members = some
}

// lie has answers tampered with.
func (s *side) lie(tamper func(kmsg.Response)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tamper = tamper
}

func (s *side) delete(group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.groups, group)
}

func (s *side) count() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, each := range s.requests {
		n += each
	}
	return n
}

func (s *side) coordinator(group string) int32 { return 1 + int32(len(group))%s.brokers }

func (s *side) Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	return s.RequestBroker(ctx, 1, req)
}

func (s *side) RequestBroker(ctx context.Context, broker int32, req kmsg.Request) (kmsg.Response, error) {
	if broker == s.silent {
		return nil, errBroken
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	done, err := true, error(nil)
	if s.fault != nil {
		done, err = s.fault(req)
	}
	if err != nil && !done {
		return nil, err
	}
	s.requests[req.Key()]++
	resp := s.answer(broker, req)
	if s.tamper != nil {
		s.tamper(resp)
	}
	return resp, err
}

func (s *side) answer(broker int32, req kmsg.Request) kmsg.Response {
	resp := req.ResponseKind()
	resp.SetVersion(req.MaxVersion())
	switch req := req.(type) {
	case *kmsg.MetadataRequest:
		resp := resp.(*kmsg.MetadataResponse)
		for id := range s.brokers {
			resp.Brokers = append(resp.Brokers, kmsg.MetadataResponseBroker{NodeID: id + 1})
		}
		for _, t := range req.Topics {
			topic := kmsg.NewMetadataResponseTopic()
			topic.Topic = t.Topic
			for partition := range int32(3) {
				p := kmsg.NewMetadataResponseTopicPartition()
				p.Partition, p.LeaderEpoch = partition, s.epochs[*t.Topic]
				topic.Partitions = append(topic.Partitions, p)
			}
			resp.Topics = append(resp.Topics, topic)
		}
	case *kmsg.FindCoordinatorRequest:
		for _, key := range req.CoordinatorKeys {
			c := kmsg.NewFindCoordinatorResponseCoordinator()
			c.Key, c.NodeID = key, s.coordinator(key)
			resp := resp.(*kmsg.FindCoordinatorResponse)
			resp.Coordinators = append(resp.Coordinators, c)
		}
	case *kmsg.ListGroupsRequest:
		resp := resp.(*kmsg.ListGroupsResponse)
		for name, g := range s.groups {
			one := kmsg.NewListGroupsResponseGroup()
			one.Group, one.ProtocolType, one.GroupState, one.GroupType = name, "consumer", "Empty", "classic"
			if g.members {
				one.GroupState = "Stable"
			}
			if s.coordinator(name) == broker && (len(req.StatesFilter) == 0 || g.members) {
				resp.Groups = append(resp.Groups, one)
			}
		}
	case *kmsg.OffsetFetchRequest:
		s.fetch(req, resp.(*kmsg.OffsetFetchResponse))
	case *kmsg.OffsetCommitRequest:
		s.carryOut(req, resp.(*kmsg.OffsetCommitResponse))
	case *kmsg.OffsetDeleteRequest:
		resp := resp.(*kmsg.OffsetDeleteResponse)
		g := s.groups[req.Group]
		switch {
		case g == nil:
			resp.ErrorCode = kerr.GroupIDNotFound.Code
		case g.members:
			resp.ErrorCode = kerr.NonEmptyGroup.Code
		default:
			for _, t := range req.Topics {
				for _, p := range t.Partitions {
					delete(g.offsets, kafka.TopicPartition{Topic: t.Topic, Partition: p.Partition})
				}
			}
		}
	default:
		panic(fmt.Sprintf("nobody answers %T", req))
	}
	return resp
}

func (s *side) fetch(req *kmsg.OffsetFetchRequest, resp *kmsg.OffsetFetchResponse) {
	for _, asked := range req.Groups {
		one := kmsg.NewOffsetFetchResponseGroup()
		one.Group = asked.Group
		g := s.groups[asked.Group]
		if g == nil {
			g = &sideGroup{}
		}
		topics := map[string]*kmsg.OffsetFetchResponseGroupTopic{}
		for at, c := range g.offsets {
			if topics[at.Topic] == nil {
				topics[at.Topic] = &kmsg.OffsetFetchResponseGroupTopic{Topic: at.Topic}
			}
			p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = at.Partition, c.offset, c.epoch, &c.metadata
			topics[at.Topic].Partitions = append(topics[at.Topic].Partitions, p)
		}
		for _, t := range topics {
			one.Topics = append(one.Topics, *t)
		}
		resp.Groups = append(resp.Groups, one)
	}
}

func (s *side) carryOut(req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse) {
	g := s.group(req.Group)
	for _, t := range req.Topics {
		topic := kmsg.OffsetCommitResponseTopic{Topic: t.Topic}
		for _, p := range t.Partitions {
			answer := kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition}
			if g.members {
				answer.ErrorCode = kerr.UnknownMemberID.Code
			} else {
				at := kafka.TopicPartition{Topic: t.Topic, Partition: p.Partition}
				before := int64(-1)
				if c, ok := g.offsets[at]; ok {
					before = c.offset
				}
				if s.onCommit != nil {
					s.onCommit(req.Group, at, before, p.Offset)
				}
				g.offsets[at] = checkpointed{p.Offset, p.LeaderEpoch, *p.Metadata}
			}
			topic.Partitions = append(topic.Partitions, answer)
		}
		resp.Topics = append(resp.Topics, topic)
	}
}

func (s *side) Append(ctx context.Context, topic string, _ int32, records []wire.Record) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readOnly != nil {
		return 0, s.readOnly
	}
	base := int64(len(s.topics[topic]))
	for _, rec := range records {
		rec.Offset = int64(len(s.topics[topic]))
		s.topics[topic] = append(s.topics[topic], rec)
	}
	return base, nil
}

// write appends a batch of n records to partition 0 of a topic, at an offset at or
// behind its end. A producer id of -1 is none.
func (s *side) write(topic string, base int64, n int, producerID int64) {
	s.writeRecords(topic, base, make([]wire.Record, n), producerID)
}

func (s *side) writeRecords(topic string, base int64, records []wire.Record, producerID int64) {
	o := wire.Plain(wire.CodecNone)
	if producerID >= 0 {
		o = wire.BatchOptions{ProducerID: producerID, LeaderEpoch: -1}
	}
	b, err := wire.EncodeBatch(nil, records, o)
	if err != nil {
		panic(err)
	}
	b.SetBaseOffset(base)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs[topic] = append(s.logs[topic], b)
}

func (s *side) Fetch(ctx context.Context, topic string, _ int32, offset int64, maxBytes int32, _ bool, _ time.Duration) (got kafka.FetchResult, err error) {
	if err := ctx.Err(); err != nil {
		return got, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetches++
	for _, b := range s.logs[topic] {
		got.HighWatermark = b.LastOffset() + 1
		if b.LastOffset() >= offset && (len(got.Records) == 0 || len(got.Records)+len(b) <= int(maxBytes)) {
			got.Records = append(got.Records, b...)
		}
	}
	return got, nil
}

func (s *side) fetched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches
}

func (s *side) ListOffset(_ context.Context, topic string, _ int32, _ int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends[topic], nil
}

// end sets what ListOffset says.
func (s *side) end(topic string, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends[topic] = offset
}

func (s *side) Read(_ context.Context, topic string, _ int32, _ int64, fn func(wire.Record) error) (int64, error) {
	s.mu.Lock()
	records := s.topics[topic]
	s.mu.Unlock()
	for _, rec := range records {
		if err := fn(rec); err != nil {
			return 0, err
		}
	}
	return int64(len(records)), nil
}

func (s *side) EnsureInternalTopic(context.Context, string, int32, map[string]string) error {
	return nil
}

func (s *side) TopicConfigs(context.Context, []string) (map[string]map[string]kafka.ConfigEntry, error) {
	return nil, errors.New("nobody knows")
}

func (s *side) AlterTopicConfigs(context.Context, string, map[string]string, []string) error {
	return nil
}
