package coordinator

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// protocol is one assignor a member supports and what it says to it. The
// metadata passes through unread, but for the topics of "consumer" groups.
type protocol struct {
	name     string
	metadata []byte
}

// member is one member of a group. Owned by its Group.
type member struct {
	id         string
	instance   *string // static member (KIP-345)
	client     ClientInfo
	rebalance  time.Duration
	session    time.Duration
	protocols  []protocol // in the member's order of preference
	assignment []byte

	// isNew: its first join is not answered yet, so it cannot heartbeat.
	isNew bool
	// nameless: the join that made it carried no id, so its client does not
	// know it before the answer.
	nameless    bool
	join        Ticket // parked JoinGroup; 0: none
	joinVersion int16
	sync        Ticket // parked SyncGroup; 0: none
	syncVersion int16
	sessionEnds time.Time // zero: not running
}

// keepsItself tells that a member whose session has run out stays, because it
// waits for us and not we for it.
func (m *member) keepsItself() bool { return !m.isNew && (m.join != 0 || m.sync != 0) }

// metadata is what the member said for a protocol.
func (m *member) metadata(name string) []byte {
	for _, p := range m.protocols {
		if p.name == name {
			return p.metadata
		}
	}
	return nil
}

func (m *member) supports(name string) bool {
	return slices.ContainsFunc(m.protocols, func(p protocol) bool { return p.name == name })
}

// matches tells that a join brings nothing new.
func (m *member) matches(other []kmsg.JoinGroupRequestProtocol) bool {
	return slices.EqualFunc(m.protocols, other, func(p protocol, o kmsg.JoinGroupRequestProtocol) bool {
		return p.name == o.Name && bytes.Equal(p.metadata, o.Metadata)
	})
}

// update takes over what a join says about the member.
func (m *member) update(req *kmsg.JoinGroupRequest) {
	m.protocols = m.protocols[:0:0]
	for _, p := range req.Protocols {
		m.protocols = append(m.protocols, protocol{strings.Clone(p.Name), bytes.Clone(p.Metadata)})
	}
	m.session = time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	m.rebalance = time.Duration(req.RebalanceTimeoutMillis) * time.Millisecond
	if req.Version < 1 || req.RebalanceTimeoutMillis < 0 { // v0 has no rebalance timeout
		m.rebalance = m.session
	}
}

// add makes a member of a join. The first one gives the group its protocol
// type and leads.
func (g *Group) add(m *member, protocolType string) {
	if m.instance != nil {
		g.static[*m.instance] = m.id
	}
	if len(g.members) == 0 {
		t := strings.Clone(protocolType)
		g.protocolType = &t
	}
	if g.leader == "" {
		g.leader = m.id
	}
	g.members = append(g.members, m)
	g.byID[m.id] = m
	delete(g.pendingJoin, m.id)
}

// remove forgets a member. Whatever it waits for must have been answered.
func (g *Group) remove(id string) {
	if m := g.byID[id]; m != nil {
		if m.instance != nil && g.static[*m.instance] == id {
			delete(g.static, *m.instance)
		}
		g.members = slices.DeleteFunc(g.members, func(o *member) bool { return o == m })
		delete(g.byID, id)
	}
	if g.leader == id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
	delete(g.pendingJoin, id)
	delete(g.pendingSync, id)
}

// awaitingJoin counts the members whose join is parked.
func (g *Group) awaitingJoin() (n int) {
	for _, m := range g.members {
		if m.join != 0 {
			n++
		}
	}
	return n
}

func (g *Group) allJoined() bool {
	return len(g.pendingJoin) == 0 && g.awaitingJoin() == len(g.members)
}

// rebalanceTimeout is the longest that any member asks for.
func (g *Group) rebalanceTimeout() (longest time.Duration) {
	for _, m := range g.members {
		longest = max(longest, m.rebalance)
	}
	return longest
}

// supported tells whether a joiner shares a protocol with everybody.
func (g *Group) supported(protocolType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	if g.protocolType == nil || *g.protocolType != protocolType {
		return false
	}
	return slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool { return g.common(p.Name) })
}

// common tells that every member supports a protocol.
func (g *Group) common(name string) bool {
	for _, m := range g.members {
		if !m.supports(name) {
			return false
		}
	}
	return true
}

// selectProtocol lets every member vote for the first of its protocols that
// all support. A tie goes to the one that was voted for first.
func (g *Group) selectProtocol() string {
	supporters := make(map[string]int)
	for _, m := range g.members {
		for i, p := range m.protocols {
			if !slices.ContainsFunc(m.protocols[:i], func(q protocol) bool { return q.name == p.name }) {
				supporters[p.name]++
			}
		}
	}
	var order []string
	votes := make(map[string]int)
	for _, m := range g.members {
		for _, p := range m.protocols {
			if supporters[p.name] == len(g.members) {
				if votes[p.name] == 0 {
					order = append(order, p.name)
				}
				votes[p.name]++
				break
			}
		}
	}
	best := ""
	for _, name := range order {
		if best == "" || votes[name] > votes[best] {
			best = name
		}
	}
	return best
}
