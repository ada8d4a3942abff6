package coordinator

import (
	"bytes"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Sync takes a SyncGroup. Followers wait for the leader's; the leader's
// assignment is recorded, then everybody is answered.
//
// Version notes:
//   - v3: group.instance.id (KIP-345)
//   - v5: protocol type and name must be those of the group (KIP-559)
func (g *Group) Sync(t Ticket, req *kmsg.SyncGroupRequest) []Effect {
	if code := g.validateSync(req); code != 0 {
		g.answer(t, syncError(req.Version, code))
		return g.take()
	}
	m := g.member(req.MemberID)
	switch g.state {
	case PreparingRebalance:
		g.answer(t, syncError(req.Version, kerr.RebalanceInProgress.Code))
	case CompletingRebalance:
		g.failSync(m, kerr.RebalanceInProgress) // superseded; its connection is gone
		m.sync, m.syncVersion = t, req.Version
		delete(g.pendingSync, m.id)
		if g.leader == m.id && g.storing != g.generation {
			g.storeAssignment(req)
		}
	case Stable:
		delete(g.pendingSync, m.id)
		g.answer(t, g.syncResponse(req.Version, m))
	default:
		g.answer(t, syncError(req.Version, kerr.UnknownMemberID.Code))
	}
	return g.take()
}

func (g *Group) validateSync(req *kmsg.SyncGroupRequest) int16 {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable.Code
	}
	if code := g.validate(req.MemberID, req.InstanceID); code != 0 {
		return code
	}
	if req.Generation != g.generation {
		return kerr.IllegalGeneration.Code
	}
	differs := func(theirs, ours *string) bool { return theirs != nil && (ours == nil || *theirs != *ours) }
	if differs(req.ProtocolType, g.protocolType) ||
		g.state != PreparingRebalance && differs(req.Protocol, g.protocol) {
		return kerr.InconsistentGroupProtocol.Code
	}
	return 0
}

// storeAssignment records the leader's assignment; when it is durable, the
// group is stable.
func (g *Group) storeAssignment(req *kmsg.SyncGroupRequest) {
	assigned := make(map[string][]byte, len(req.GroupAssignment))
	for _, a := range req.GroupAssignment {
		if g.member(a.MemberID) != nil {
			assigned[g.member(a.MemberID).id] = bytes.Clone(a.MemberAssignment)
		}
	}
	generation := g.generation
	g.storing = generation
	g.append(g.metadataRecord(assigned), func(code int16, now time.Time) {
		if g.storing == generation {
			g.storing = -1
		}
		if g.state != CompletingRebalance || g.generation != generation {
			return // somebody came or went meanwhile; the next generation is on its way
		}
		if code != 0 {
			g.dropAssignment(code, now)
			g.prepareRebalance(now)
			return
		}
		for _, m := range g.members {
			m.assignment = assigned[m.id]
		}
		g.become(Stable, now)
		for _, m := range g.members {
			if m.sync != 0 {
				g.answer(m.sync, g.syncResponse(m.syncVersion, m))
				m.sync = 0
				g.keepAlive(m, now)
			}
		}
	})
}

// dropAssignment forgets the assignments and ends all parked syncs with an error.
func (g *Group) dropAssignment(code int16, now time.Time) {
	for _, m := range g.members {
		m.assignment = nil
		if m.sync != 0 {
			g.answer(m.sync, syncError(m.syncVersion, code))
			m.sync = 0
			g.keepAlive(m, now)
		}
	}
}

// syncPhaseEnds removes the members that have the generation but never came
// for their assignment.
func (g *Group) syncPhaseEnds(now time.Time) {
	g.syncAt = time.Time{}
	if g.state != CompletingRebalance && g.state != Stable || len(g.pendingSync) == 0 {
		return
	}
	for _, m := range slices.Clone(g.members) {
		if g.pendingSync[m.id] {
			g.remove(m.id)
		}
	}
	g.prepareRebalance(now)
}

func (g *Group) endSyncPhase() {
	clear(g.pendingSync)
	g.syncAt = time.Time{}
}

func (g *Group) syncResponse(version int16, m *member) *kmsg.SyncGroupResponse {
	r := kmsg.NewPtrSyncGroupResponse()
	r.Version = version
	r.ProtocolType, r.Protocol = g.protocolType, g.protocol
	r.MemberAssignment = m.assignment
	if r.MemberAssignment == nil {
		r.MemberAssignment = []byte{}
	}
	return r
}

// failSync ends a parked sync with an error.
func (g *Group) failSync(m *member, err *kerr.Error) {
	if m.sync != 0 {
		g.answer(m.sync, syncError(m.syncVersion, err.Code))
		m.sync = 0
	}
}

func syncError(version, code int16) *kmsg.SyncGroupResponse {
	r := kmsg.NewPtrSyncGroupResponse()
	r.Version, r.ErrorCode, r.MemberAssignment = version, code, []byte{}
	return r
}
