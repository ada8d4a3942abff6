package coordinator

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// The records of __consumer_offsets are Kafka's. A key begins with an int16
// version that is also its kind:
//
//	0, 1  OffsetCommitKey    group, topic, partition  -> OffsetCommitValue v0-v4
//	2     GroupMetadataKey   group                    -> GroupMetadataValue v0-v4
//	3...  KIP-848 and later: skipped
//
// A null value is a tombstone. We write commits as v3 (v1 when the commit has
// an expiry of its own, which only OffsetCommit v2-v4 can ask for) and
// metadata as v3: the newest that are not flexible, as Kafka does.
const (
	offsetKeyVersion     = 1
	groupKeyVersion      = 2
	newestOffsetValue    = 4
	newestMetadataValue  = 4
	writtenOffsetValue   = 3
	writtenExpiringValue = 1
	writtenMetadataValue = 3
)

// offset is one committed offset.
type offset struct {
	at        int64
	epoch     int32
	metadata  string
	committed int64  // ms
	expires   int64  // ms; -1: by retention
	order     uint64 // of its record among those of the group
}

type topicPartition struct {
	topic     string
	partition int32
}

// offsetRecord is a commit as a record.
func (g *Group) offsetRecord(tp topicPartition, o offset) wire.Record {
	v := kmsg.NewOffsetCommitValue()
	v.Version = writtenOffsetValue
	v.Offset, v.LeaderEpoch, v.Metadata = o.at, o.epoch, o.metadata
	v.CommitTimestamp, v.ExpireTimestamp = o.committed, o.expires
	if o.expires >= 0 {
		v.Version = writtenExpiringValue
	}
	return wire.Record{Timestamp: o.committed, Key: g.offsetKey(tp), Value: v.AppendTo(nil)}
}

func (g *Group) offsetTombstone(tp topicPartition, now time.Time) wire.Record {
	return wire.Record{Timestamp: now.UnixMilli(), Key: g.offsetKey(tp)}
}

func (g *Group) offsetKey(tp topicPartition) []byte {
	k := kmsg.NewOffsetCommitKey()
	k.Version, k.Group, k.Topic, k.Partition = offsetKeyVersion, g.id, tp.topic, tp.partition
	return k.AppendTo(nil)
}

// metadataRecord is the group as it stands, with these assignments, or with
// the members' own if assigned is nil.
func (g *Group) metadataRecord(assigned map[string][]byte) []wire.Record {
	v := kmsg.NewGroupMetadataValue()
	v.Version = writtenMetadataValue
	v.Generation, v.Protocol = g.generation, g.protocol
	v.CurrentStateTimestamp = g.stateSince
	if g.protocolType != nil {
		v.ProtocolType = *g.protocolType
	}
	if g.leader != "" {
		v.Leader = &g.leader
	}
	for _, m := range g.members {
		vm := kmsg.NewGroupMetadataValueMember()
		vm.MemberID, vm.InstanceID, vm.ClientID, vm.ClientHost = m.id, m.instance, m.client.ID, m.client.Host
		vm.RebalanceTimeoutMillis, vm.SessionTimeoutMillis = int32(m.rebalance.Milliseconds()), int32(m.session.Milliseconds())
		vm.Subscription, vm.Assignment = []byte{}, []byte{}
		if g.protocol != nil {
			vm.Subscription = m.metadata(*g.protocol)
		}
		if assigned == nil && m.assignment != nil {
			vm.Assignment = m.assignment
		} else if a, ok := assigned[m.id]; ok {
			vm.Assignment = a
		}
		v.Members = append(v.Members, vm)
	}
	g.recorded = true
	return []wire.Record{{Timestamp: g.stateSince, Key: g.metadataKey(), Value: v.AppendTo(nil)}}
}

func (g *Group) metadataTombstone(now time.Time) wire.Record {
	return wire.Record{Timestamp: now.UnixMilli(), Key: g.metadataKey()}
}

func (g *Group) metadataKey() []byte {
	k := kmsg.NewGroupMetadataKey()
	k.Version, k.Group = groupKeyVersion, g.id
	return k.AppendTo(nil)
}

// entryOf is what a record of __consumer_offsets says: of an offset (isOffset,
// tp, commit) or of a group (metadata). A nil commit or metadata is a tombstone.
type entryOf struct {
	group    string
	producer int64 // whose transaction the record is part of; noProducerID: none
	isOffset bool
	tp       topicPartition
	commit   *kmsg.OffsetCommitValue
	metadata *kmsg.GroupMetadataValue
}

// decodeRecord reads a record. known is false for kinds that are not ours (of
// KIP-848 groups, share groups).
func decodeRecord(r wire.Record) (e entryOf, known bool, err error) {
	if len(r.Key) < 2 {
		return e, false, fmt.Errorf("group record: key of %d bytes", len(r.Key))
	}
	switch version := int16(binary.BigEndian.Uint16(r.Key)); version {
	case 0, offsetKeyVersion:
		return decodeOffset(r)
	case groupKeyVersion:
		return decodeMetadata(r)
	default:
		return e, false, nil
	}
}

func decodeOffset(r wire.Record) (e entryOf, known bool, err error) {
	k := kmsg.NewOffsetCommitKey()
	if err := k.ReadFrom(r.Key); err != nil {
		return e, true, fmt.Errorf("offset commit key: %w", err)
	}
	e.group, e.isOffset, e.tp = k.Group, true, topicPartition{k.Topic, k.Partition}
	if r.Value == nil {
		return e, true, nil
	}
	if err := checkVersion("offset commit", r.Value, newestOffsetValue); err != nil {
		return e, true, err
	}
	v := kmsg.NewOffsetCommitValue()
	v.LeaderEpoch, v.ExpireTimestamp = -1, -1
	if err := v.ReadFrom(r.Value); err != nil {
		return e, true, fmt.Errorf("offset commit of group %q for %s/%d: %w", k.Group, k.Topic, k.Partition, err)
	}
	if v.Version < 3 {
		v.LeaderEpoch = -1
	}
	if v.Version != 1 {
		v.ExpireTimestamp = -1
	}
	e.commit = &v
	return e, true, nil
}

func decodeMetadata(r wire.Record) (e entryOf, known bool, err error) {
	k := kmsg.NewGroupMetadataKey()
	if err := k.ReadFrom(r.Key); err != nil {
		return e, true, fmt.Errorf("group metadata key: %w", err)
	}
	e.group = k.Group
	if r.Value == nil {
		return e, true, nil
	}
	if err := checkVersion("group metadata", r.Value, newestMetadataValue); err != nil {
		return e, true, err
	}
	v := kmsg.NewGroupMetadataValue()
	if err := v.ReadFrom(r.Value); err != nil {
		return e, true, fmt.Errorf("metadata of group %q: %w", k.Group, err)
	}
	e.metadata = &v
	return e, true, nil
}

func checkVersion(what string, value []byte, newest int16) error {
	if len(value) < 2 {
		return fmt.Errorf("%s: value of %d bytes", what, len(value))
	}
	if v := int16(binary.BigEndian.Uint16(value)); v < 0 || v > newest {
		return fmt.Errorf("%s: value version %d, newest known is %d", what, v, newest)
	}
	return nil
}

// replay applies one record of the log, while the group is being loaded.
// Sessions begin with Loaded.
func (g *Group) replay(e entryOf) {
	switch {
	case e.isOffset && e.commit == nil:
		g.forget(e.tp)
	case e.isOffset:
		g.lastOrder++
		o := offset{
			at: e.commit.Offset, epoch: e.commit.LeaderEpoch, metadata: e.commit.Metadata,
			committed: e.commit.CommitTimestamp, expires: e.commit.ExpireTimestamp, order: g.lastOrder,
		}
		if e.producer == noProducerID {
			g.put(e.tp, o)
		} else {
			g.putUndecided(e.producer, e.tp, o)
		}
	case e.metadata == nil:
		g.restore(kmsg.NewGroupMetadataValue())
		g.recorded = false
	default:
		g.restore(*e.metadata)
		g.recorded = true
	}
}

// restore takes over what a metadata record says.
func (g *Group) restore(v kmsg.GroupMetadataValue) {
	g.state, g.members, g.leader, g.protocolType, g.protocol = Empty, nil, "", nil, nil
	clear(g.byID)
	clear(g.static)
	g.generation, g.stateSince = v.Generation, v.CurrentStateTimestamp
	if v.ProtocolType != "" {
		g.protocolType = &v.ProtocolType
	}
	g.protocol = v.Protocol
	if v.Leader != nil {
		g.leader = *v.Leader
	}
	for _, vm := range v.Members {
		if g.byID[vm.MemberID] != nil {
			continue
		}
		m := &member{
			id: vm.MemberID, instance: vm.InstanceID,
			client:     ClientInfo{vm.ClientID, vm.ClientHost},
			session:    time.Duration(vm.SessionTimeoutMillis) * time.Millisecond,
			rebalance:  time.Duration(vm.RebalanceTimeoutMillis) * time.Millisecond,
			assignment: bytes.Clone(vm.Assignment),
		}
		if vm.RebalanceTimeoutMillis < 0 {
			m.rebalance = m.session
		}
		if v.Protocol != nil {
			m.protocols = []protocol{{*v.Protocol, bytes.Clone(vm.Subscription)}}
		}
		g.add(m, v.ProtocolType)
		g.state = Stable
	}
	g.subscribed = g.readSubscriptions()
}

// Loaded begins the sessions of a group read from the log. A group that is
// larger than group.max.size by now is rebalanced.
func (g *Group) Loaded(now time.Time) []Effect {
	for _, m := range g.members {
		g.keepAlive(m, now)
	}
	if len(g.members) > g.settings.MaxGroupSize {
		g.prepareRebalance(now)
	}
	return g.take()
}

// readSubscriptions is what the members of a "consumer" group subscribe to;
// nil when that cannot be known.
func (g *Group) readSubscriptions() map[string]bool {
	if g.protocolType == nil || *g.protocolType != "consumer" {
		return nil
	}
	topics := make(map[string]bool)
	if len(g.members) == 0 {
		return topics
	}
	if g.protocol == nil {
		return nil
	}
	for _, m := range g.members {
		if !eachSubscribed(m.metadata(*g.protocol), func(topic string) { topics[topic] = true }) {
			return nil
		}
	}
	return topics
}

// eachSubscribed reads the topics of a consumer's subscription, which begins
// alike in every version: int16 version, array of strings.
func eachSubscribed(metadata []byte, fn func(topic string)) bool {
	if len(metadata) < 6 {
		return false
	}
	n, rest := int32(binary.BigEndian.Uint32(metadata[2:])), metadata[6:]
	if n < 0 {
		return false
	}
	for range n {
		if len(rest) < 2 {
			return false
		}
		size := int(binary.BigEndian.Uint16(rest))
		if len(rest)-2 < size {
			return false
		}
		fn(string(rest[2 : 2+size]))
		rest = rest[2+size:]
	}
	return true
}

func sortedKeys[V any](m map[string]V) []string {
	return slices.SortedFunc(maps.Keys(m), strings.Compare)
}
