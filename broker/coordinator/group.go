package coordinator

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// State is where a classic group stands.
type State int8

// The states, with Kafka's names (String).
const (
	Empty               State = iota // no members; offsets may remain
	PreparingRebalance               // members are asked to join again
	CompletingRebalance              // a generation is chosen, the leader assigns
	Stable                           // everyone has an assignment
	Dead                             // deleted, or about to be
)

// String is the name that ListGroups and DescribeGroups show.
func (s State) String() string {
	switch s {
	case Empty:
		return "Empty"
	case PreparingRebalance:
		return "PreparingRebalance"
	case CompletingRebalance:
		return "CompletingRebalance"
	case Stable:
		return "Stable"
	default:
		return "Dead"
	}
}

// ClientInfo is what a connection knows of the client behind a request. Host
// is in Java's form, "/127.0.0.1".
type ClientInfo struct{ ID, Host string }

// Group is one classic consumer group. It is a pure state machine: not safe
// for concurrent use, no goroutine, no clock, no I/O. Bytes and strings of
// requests are copied when kept. Rules are those of Kafka's ClassicGroup and
// GroupMetadataManager (4.x); where Kafka chooses by the order of a hash map,
// members are taken in the order they joined.
type Group struct {
	id       string
	settings *Settings

	state State
	// initial: this rebalance began from Empty, so it waits for its timer and
	// not only for everybody to have joined.
	initial      bool
	stateSince   int64   // ms; -1: not known (old records)
	protocolType *string // nil: a simple group, used for its offsets only
	protocol     *string // nil: none chosen
	generation   int32
	leader       string    // "": none
	members      []*member // in the order they joined
	byID         map[string]*member
	static       map[string]string
	pendingJoin  map[string]time.Time // ids promised (KIP-394), and when the promise ends
	pendingSync  map[string]bool      // members of this generation that have not synced
	subscribed   map[string]bool      // topics; nil: not known
	newMember    bool                 // someone joined during the initial delay
	recorded     bool                 // a metadata record is in the log, or on its way
	gone         bool                 // the deletion is durable

	joinAt      time.Time     // end of the join phase; zero: not set
	initialLeft time.Duration // what an initial delay may still be prolonged by
	syncAt      time.Time     // end of the sync phase; zero: not set
	storing     int32         // generation whose assignment is being appended; -1: none

	offsets  map[string]map[int32]offset // durable commits, by topic and partition
	unstored map[topicPartition]int      // commits on their way to the log

	// undecided are durable commits of transactions that are not over, by
	// producer id.
	undecided map[int64]map[topicPartition]offset
	lastOrder uint64 // of a commit

	lastAppend uint64
	appends    map[uint64]func(code int16, now time.Time)
	out        []Effect
}

// NewGroup is an empty group without history. settings is read, never changed.
func NewGroup(id string, settings *Settings, now time.Time) *Group {
	return &Group{
		id: id, settings: settings,
		stateSince:  now.UnixMilli(),
		storing:     -1,
		byID:        make(map[string]*member),
		static:      make(map[string]string),
		pendingJoin: make(map[string]time.Time),
		pendingSync: make(map[string]bool),
		offsets:     make(map[string]map[int32]offset),
		unstored:    make(map[topicPartition]int),
		undecided:   make(map[int64]map[topicPartition]offset),
		appends:     make(map[uint64]func(int16, time.Time)),
	}
}

// ID is the group's name.
func (g *Group) ID() string { return g.id }

// State is where the group stands.
func (g *Group) State() State { return g.state }

// Generation is the current generation; 0 before the first.
func (g *Group) Generation() int32 { return g.generation }

// Gone tells that the group was deleted, durably: forget it.
func (g *Group) Gone() bool { return g.gone }

// Vacant tells that nothing is known of the group, in memory or in the log:
// it may be forgotten without a record.
func (g *Group) Vacant() bool {
	return g.state == Empty && !g.recorded && len(g.members) == 0 && len(g.pendingJoin) == 0 &&
		len(g.offsets) == 0 && len(g.undecided) == 0 && len(g.appends) == 0
}

// Next is the earliest deadline that Tick waits for; ok is false when there is none.
func (g *Group) Next() (at time.Time, ok bool) {
	earliest := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	earliest(g.joinAt)
	earliest(g.syncAt)
	for _, m := range g.members {
		earliest(m.sessionEnds)
	}
	for _, t := range g.pendingJoin {
		earliest(t)
	}
	return at, !at.IsZero()
}

// Tick lets every deadline up to now take effect: sessions, promised member
// ids, the join phase, the sync phase.
func (g *Group) Tick(now time.Time) []Effect {
	due := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if g.state != Dead {
		for _, id := range sortedKeys(g.pendingJoin) {
			if due(g.pendingJoin[id]) {
				delete(g.pendingJoin, id)
				g.completeIfAllJoined(now)
			}
		}
		for _, m := range slices.Clone(g.members) {
			if due(m.sessionEnds) && g.member(m.id) == m {
				m.sessionEnds = time.Time{}
				if !m.keepsItself() {
					g.expel(m, now)
				}
			}
		}
		if due(g.joinAt) {
			g.joinPhaseEnds(now)
		}
		if due(g.syncAt) {
			g.syncPhaseEnds(now)
		}
	}
	return g.take()
}

// Abandon tells that nobody waits for t any more: its connection has ended. A
// member stays until its session ends, unless its client never learned the
// member's id.
func (g *Group) Abandon(t Ticket, now time.Time) []Effect {
	for _, m := range g.members {
		switch {
		case t == 0:
		case m.sync == t:
			m.sync = 0
			g.keepAlive(m, now)
		case m.join == t && m.nameless:
			m.join = 0
			g.expel(m, now)
			return g.take()
		case m.join == t:
			m.join = 0
			g.keepAlive(m, now)
		}
	}
	return g.take()
}

// become moves to a state. Its callers keep to the legal moves.
func (g *Group) become(s State, now time.Time) {
	g.state = s
	g.stateSince = now.UnixMilli()
}

// member is the member of that id, nil if there is none.
func (g *Group) member(id string) *member { return g.byID[id] }

// validate is Kafka's ClassicGroup.validateMember: a static member is fenced
// when its instance belongs to another member by now (KIP-345).
func (g *Group) validate(memberID string, instance *string) int16 {
	if instance != nil {
		switch owner, ok := g.static[*instance]; {
		case !ok:
			return kerr.UnknownMemberID.Code
		case owner != memberID:
			return kerr.FencedInstanceID.Code
		}
	}
	if g.member(memberID) == nil {
		return kerr.UnknownMemberID.Code
	}
	return 0
}

// Heartbeat keeps a member's session and answers with a Kafka error code.
func (g *Group) Heartbeat(req *kmsg.HeartbeatRequest, now time.Time) int16 {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable.Code
	}
	if code := g.validate(req.MemberID, req.InstanceID); code != 0 {
		return code
	}
	if req.Generation != g.generation {
		return kerr.IllegalGeneration.Code
	}
	g.keepAlive(g.member(req.MemberID), now)
	if g.state == PreparingRebalance {
		return kerr.RebalanceInProgress.Code
	}
	return 0
}

func (g *Group) keepAlive(m *member, now time.Time) { m.sessionEnds = now.Add(m.session) }
