package coordinator

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// rebalanceOrComplete begins a rebalance, or ends the join phase of the one
// under way if nobody is missing.
func (g *Group) rebalanceOrComplete(now time.Time) {
	if g.state == PreparingRebalance {
		g.completeIfAllJoined(now)
	} else {
		g.prepareRebalance(now)
	}
}

// completeIfAllJoined ends the join phase early. An initial rebalance waits
// for its delay instead, unless it has lost everybody.
func (g *Group) completeIfAllJoined(now time.Time) {
	if g.state == PreparingRebalance && g.allJoined() && (!g.initial || len(g.members) <= 0) {
		g.completeJoin(now)
	}
}

// prepareRebalance asks everybody to join again: those that wait for an
// assignment at once, the others with their next heartbeat.
func (g *Group) prepareRebalance(now time.Time) {
	if g.state == CompletingRebalance {
		g.dropAssignment(kerr.RebalanceInProgress.Code, now)
	}
	g.endSyncPhase()
	g.initial = g.state == Empty
	g.become(PreparingRebalance, now)
	switch delay := g.settings.InitialRebalanceDelay; {
	case g.initial && delay > 0:
		g.joinAt = now.Add(delay)
		g.initialLeft = max(g.rebalanceTimeout()-delay, 0)
	case g.initial, g.allJoined(), len(g.members) == 0: // those that were only promised an id are not waited for
		g.completeJoin(now)
	default:
		g.joinAt = now.Add(g.rebalanceTimeout())
	}
}

// joinPhaseEnds is the join timer. As long as members keep coming to a new
// group, the initial delay is prolonged, up to the rebalance timeout.
func (g *Group) joinPhaseEnds(now time.Time) {
	g.joinAt = time.Time{}
	if g.state != PreparingRebalance {
		return
	}
	if g.initial && g.newMember && g.initialLeft > 0 {
		g.newMember = false
		delay := min(g.settings.InitialRebalanceDelay, g.initialLeft)
		g.initialLeft -= delay
		g.joinAt = now.Add(delay)
		return
	}
	g.completeJoin(now)
}

// completeJoin ends the join phase: dynamic members that did not come are
// out, the next generation begins.
func (g *Group) completeJoin(now time.Time) {
	g.joinAt, g.newMember, g.initial = time.Time{}, false, false
	for _, m := range slices.Clone(g.members) {
		if m.join == 0 && m.instance == nil {
			g.remove(m.id)
		}
	}
	if len(g.members) > 0 && !g.electJoined() {
		// Only static members, none of which came: their sessions decide.
		g.joinAt = now.Add(max(g.rebalanceTimeout(), time.Second))
		return
	}
	g.generation = nextGeneration(g.generation)
	clear(g.pendingSync)
	if len(g.members) == 0 {
		g.protocol, g.leader = nil, ""
		g.become(Empty, now)
		g.subscribed = g.readSubscriptions()
		if g.recorded || len(g.offsets) > 0 {
			g.append(g.metadataRecord(nil), func(int16, time.Time) {}) // a failure costs a session timeout after a restart
		}
		return
	}
	chosen := g.selectProtocol()
	g.protocol = &chosen
	g.subscribed = g.readSubscriptions()
	g.become(CompletingRebalance, now)
	for _, m := range g.members {
		if m.join != 0 {
			g.answerJoin(m.join, m.joinVersion, m)
			m.join = 0
		}
		g.keepAlive(m, now)
		m.isNew, m.nameless = false, false
		g.pendingSync[m.id] = true
	}
	g.syncAt = now.Add(g.rebalanceTimeout())
}

// electJoined keeps a leader that has joined, or makes one of a member that has.
func (g *Group) electJoined() bool {
	if m := g.member(g.leader); m != nil && m.join != 0 {
		return true
	}
	for _, m := range g.members {
		if m.join != 0 {
			g.leader = m.id
			return true
		}
	}
	return false
}

// nextGeneration counts on and begins again after 2^31-1.
func nextGeneration(g int32) int32 {
	if g >= 1<<31-1 {
		return 1
	}
	return g + 1
}

// expel removes a member whose time is up and moves the group on.
func (g *Group) expel(m *member, now time.Time) {
	g.failJoin(m, "", kerr.UnknownMemberID)
	g.failSync(m, kerr.UnknownMemberID)
	g.remove(m.id)
	g.afterRemoval(now)
}

// afterRemoval goes on with those that are left.
func (g *Group) afterRemoval(now time.Time) {
	switch g.state {
	case Stable, CompletingRebalance:
		g.prepareRebalance(now)
	case PreparingRebalance:
		g.completeIfAllJoined(now)
	case Empty, Dead:
	}
}

// Leave takes a LeaveGroup: members go by id, or by instance id (KIP-345).
//
// Version notes:
//   - v0-2: one member, the error stands at the top
//   - v3: a list of members, each with its error
func (g *Group) Leave(t Ticket, req *kmsg.LeaveGroupRequest, now time.Time) []Effect {
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	if g.state == Dead {
		resp.ErrorCode = kerr.CoordinatorNotAvailable.Code
		g.answer(t, resp)
		return g.take()
	}
	left := false
	for _, who := range leaving(req) {
		r := kmsg.NewLeaveGroupResponseMember()
		r.MemberID, r.InstanceID = who.MemberID, who.InstanceID
		r.ErrorCode = g.leave(who)
		left = left || r.ErrorCode == 0
		resp.Members = append(resp.Members, r)
		if req.Version < 3 {
			resp.ErrorCode = r.ErrorCode
		}
	}
	var effects []Effect
	if left {
		g.afterRemoval(now)
		effects = g.take()
	}
	// The answer waits for the record of an emptied group, if there is one.
	for i, e := range effects {
		if a, ok := e.(Append); ok && i == len(effects)-1 {
			done := g.appends[a.ID]
			g.appends[a.ID] = func(code int16, now time.Time) {
				done(code, now)
				g.answer(t, resp)
			}
			return effects
		}
	}
	g.answer(t, resp)
	return append(effects, g.take()...)
}

// leaving is who a LeaveGroup of any version speaks of.
func leaving(req *kmsg.LeaveGroupRequest) []kmsg.LeaveGroupRequestMember {
	if req.Version >= 3 {
		return req.Members
	}
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = req.MemberID
	return []kmsg.LeaveGroupRequestMember{m}
}

// leave lets one member go; what follows for the group comes after all of them.
func (g *Group) leave(who kmsg.LeaveGroupRequestMember) int16 {
	id := who.MemberID
	if id == "" {
		if who.InstanceID == nil || g.static[*who.InstanceID] == "" {
			return kerr.UnknownMemberID.Code
		}
		id = g.static[*who.InstanceID]
	} else if _, promised := g.pendingJoin[id]; promised {
		delete(g.pendingJoin, id)
		return 0
	} else if code := g.validate(id, who.InstanceID); code != 0 {
		return code
	}
	m := g.member(id)
	g.failJoin(m, "", kerr.UnknownMemberID)
	g.failSync(m, kerr.UnknownMemberID)
	g.remove(id)
	return 0
}
