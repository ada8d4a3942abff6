package coordinator

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Join takes a JoinGroup. newID is the member id to give out if the request
// carries none; it must be unique for ever. The answer may come at once or
// with the end of the join phase.
//
// Version notes:
//   - v0: no rebalance timeout, the session timeout stands for it
//   - v4: a dynamic member without an id gets one and MEMBER_ID_REQUIRED (KIP-394)
//   - v5: group.instance.id (KIP-345)
//   - v9: a static leader that comes back into a stable group skips the assignment (KIP-814)
func (g *Group) Join(t Ticket, req *kmsg.JoinGroupRequest, client ClientInfo, newID string, now time.Time) []Effect {
	switch {
	case g.state == Dead:
		g.refuseJoin(t, req, req.MemberID, kerr.CoordinatorNotAvailable)
	case !g.admits(req.MemberID):
		if m := g.member(req.MemberID); m != nil { // did not rejoin in time to be among the first
			g.expel(m, now)
		}
		g.refuseJoin(t, req, "", kerr.GroupMaxSizeReached)
	case !g.supported(req.ProtocolType, req.Protocols):
		g.refuseJoin(t, req, req.MemberID, kerr.InconsistentGroupProtocol)
	case req.MemberID == "":
		g.joinNew(t, req, client, newID, now)
	default:
		g.joinKnown(t, req, client, now)
	}
	return g.take()
}

// admits holds group.max.size. While members rejoin, the places go to those
// that have joined already, so that a group that is too large shrinks.
func (g *Group) admits(memberID string) bool {
	m, limit := g.member(memberID), g.settings.MaxGroupSize
	_, promised := g.pendingJoin[memberID]
	switch {
	case m == nil && !promised && len(g.pendingJoin) >= limit:
		return false
	case g.state == PreparingRebalance:
		return m != nil && m.join != 0 || g.awaitingJoin() < limit
	case g.state == CompletingRebalance, g.state == Stable:
		return m != nil || len(g.members) < limit
	default:
		return true
	}
}

func (g *Group) joinNew(t Ticket, req *kmsg.JoinGroupRequest, client ClientInfo, newID string, now time.Time) {
	if req.InstanceID != nil {
		if owner, ok := g.static[*req.InstanceID]; ok {
			g.replaceStatic(t, req, g.member(owner), newID, now)
			return
		}
	} else if req.Version >= 4 {
		g.pendingJoin[newID] = now.Add(time.Duration(req.SessionTimeoutMillis) * time.Millisecond)
		g.refuseJoin(t, req, newID, kerr.MemberIDRequired)
		return
	}
	g.addJoining(t, req, client, newID, now)
}

func (g *Group) joinKnown(t Ticket, req *kmsg.JoinGroupRequest, client ClientInfo, now time.Time) {
	if _, promised := g.pendingJoin[req.MemberID]; promised && req.InstanceID == nil {
		g.addJoining(t, req, client, strings.Clone(req.MemberID), now)
		return
	}
	if code := g.validate(req.MemberID, req.InstanceID); code != 0 {
		g.refuseJoin(t, req, req.MemberID, kerr.TypedErrorForCode(code))
		return
	}
	m := g.member(req.MemberID)
	switch g.state {
	case PreparingRebalance:
		g.rejoin(t, req, m, now)
	case CompletingRebalance:
		if m.matches(req.Protocols) { // it missed the answer: say it again
			g.answerJoin(t, req.Version, m)
		} else {
			g.rejoin(t, req, m, now)
		}
	case Stable:
		// The leader may ask for a rebalance at any time, for reasons that do
		// not show in its metadata (a topic got more partitions).
		if g.leader == m.id || !m.matches(req.Protocols) {
			g.rejoin(t, req, m, now)
		} else {
			g.answerJoin(t, req.Version, m)
		}
	default:
		g.refuseJoin(t, req, req.MemberID, kerr.UnknownMemberID)
	}
}

// addJoining adds a member whose join waits for the end of the join phase.
func (g *Group) addJoining(t Ticket, req *kmsg.JoinGroupRequest, client ClientInfo, id string, now time.Time) {
	m := &member{
		id:       id,
		instance: cloneString(req.InstanceID),
		client:   ClientInfo{strings.Clone(client.ID), strings.Clone(client.Host)},
		isNew:    true,
		nameless: req.MemberID == "",
		join:     t, joinVersion: req.Version,
	}
	m.update(req)
	if g.state == PreparingRebalance && g.initial {
		g.newMember = true
	}
	g.add(m, req.ProtocolType)
	// It cannot heartbeat yet, and its client may give up and come back under
	// another id; so its join has an end of its own.
	m.sessionEnds = now.Add(g.settings.NewMemberJoinTimeout)
	g.rebalanceOrComplete(now)
}

// rejoin parks the join of a member and moves the group on.
func (g *Group) rejoin(t Ticket, req *kmsg.JoinGroupRequest, m *member, now time.Time) {
	g.park(t, req, m)
	g.rebalanceOrComplete(now)
}

func (g *Group) park(t Ticket, req *kmsg.JoinGroupRequest, m *member) {
	// A join that this one supersedes came over a connection that is gone.
	g.failJoin(m, "", kerr.UnknownMemberID)
	m.update(req)
	m.join, m.joinVersion = t, req.Version
}

// replaceStatic gives a static member's place to the process that came back
// under the same instance id, and fences the old one (KIP-345).
func (g *Group) replaceStatic(t Ticket, req *kmsg.JoinGroupRequest, m *member, newID string, now time.Time) {
	oldID, oldLeader := m.id, g.leader
	g.failJoin(m, m.id, kerr.FencedInstanceID)
	g.failSync(m, kerr.FencedInstanceID)
	before := *m
	g.rename(m, newID)
	g.keepAlive(m, now)
	m.update(req)
	m.join, m.joinVersion = t, req.Version

	switch {
	case g.state == Stable && g.protocol != nil && g.selectProtocol() == *g.protocol:
		g.storeReplaced(m, before, oldID, oldLeader)
	case g.state == Stable:
		g.rebalanceOrComplete(now)
	case g.state == CompletingRebalance:
		// The leader may already be assigning to the old id.
		g.prepareRebalance(now)
	default:
		g.completeIfAllJoined(now)
	}
}

// storeReplaced records a static member's new id; no rebalance is needed. If
// the record cannot be written, the old id holds again.
func (g *Group) storeReplaced(m *member, before member, oldID, oldLeader string) {
	t, newID, generation := m.join, m.id, g.generation
	g.append(g.metadataRecord(nil), func(code int16, now time.Time) {
		if g.member(newID) != m || m.join != t || g.generation != generation || g.state != Stable {
			return // it left, was replaced again, or a rebalance will answer it
		}
		version := m.joinVersion
		m.join = 0
		if code != 0 {
			m.protocols, m.session, m.rebalance = before.protocols, before.session, before.rebalance
			g.rename(m, oldID)
			g.keepAlive(m, now)
			r := newJoinResponse(version)
			r.ErrorCode = code
			g.answer(t, r)
			return
		}
		r := g.joinResponse(version, m)
		if version >= 9 {
			r.SkipAssignment = g.leader == m.id
		} else {
			// It must not take itself for the leader: nobody rejoins for it.
			r.LeaderID, r.Members = oldLeader, nil
		}
		g.answer(t, r)
	})
}

// rename gives a static member another id.
func (g *Group) rename(m *member, id string) {
	if g.leader == m.id {
		g.leader = id
	}
	delete(g.byID, m.id)
	if g.pendingSync[m.id] {
		delete(g.pendingSync, m.id)
		g.pendingSync[id] = true
	}
	m.id = id
	g.byID[id] = m
	g.static[*m.instance] = id
}

// answerJoin answers a join with the current generation.
func (g *Group) answerJoin(t Ticket, version int16, m *member) {
	g.answer(t, g.joinResponse(version, m))
}

// joinResponse is the current generation as one member is told it; the leader
// is told everybody's metadata.
func (g *Group) joinResponse(version int16, m *member) *kmsg.JoinGroupResponse {
	r := newJoinResponse(version)
	r.Generation = g.generation
	r.ProtocolType, r.Protocol = g.protocolType, g.protocol
	r.LeaderID, r.MemberID = g.leader, m.id
	if g.leader == m.id && g.protocol != nil {
		for _, o := range g.members {
			rm := kmsg.NewJoinGroupResponseMember()
			rm.MemberID, rm.InstanceID = o.id, o.instance
			rm.ProtocolMetadata = o.metadata(*g.protocol)
			r.Members = append(r.Members, rm)
		}
	}
	return r
}

func (g *Group) refuseJoin(t Ticket, req *kmsg.JoinGroupRequest, memberID string, err *kerr.Error) {
	r := newJoinResponse(req.Version)
	r.MemberID, r.ErrorCode = memberID, err.Code
	g.answer(t, r)
}

// failJoin ends a parked join with an error.
func (g *Group) failJoin(m *member, memberID string, err *kerr.Error) {
	if m.join != 0 {
		r := newJoinResponse(m.joinVersion)
		r.MemberID, r.ErrorCode = memberID, err.Code
		g.answer(m.join, r)
		m.join = 0
	}
}

// newJoinResponse is an answer of that version without a generation.
func newJoinResponse(version int16) *kmsg.JoinGroupResponse {
	r := kmsg.NewPtrJoinGroupResponse()
	r.Version = version
	r.Protocol = new(string)
	if version >= 7 { // nullable from here on
		r.Protocol = nil
	}
	return r
}

func cloneString(s *string) *string {
	if s == nil {
		return nil
	}
	c := strings.Clone(*s)
	return &c
}
