package checkpoint

// State is how a group, or one partition of it, stands on the target.
type State string

// The states. That of a group is the gravest of its partitions, in this order.
const (
	// InStep: the target's group stands exactly where the source's does.
	InStep State = "in-step"
	// Waiting: nothing of the partition is mirrored yet, or the group is beyond
	// what is; it stands at the mirrored end, and the shortfall is what a
	// failover now would lose.
	Waiting State = "waiting"
	// Behind: a commit to the target is due.
	Behind State = "behind"
	// Ahead: the target's group has gone on by itself, further than the
	// source's; it is not moved back.
	Ahead State = "ahead"
	// Diverged: somebody moved the target's group back since we last wrote; it
	// is left alone until its offset on the target is deleted.
	Diverged State = "diverged"
	// ActiveAtTarget: the group has members there, so it is not touched.
	ActiveAtTarget State = "active-at-target"
	// Failed: see the error.
	Failed State = "error"
)

// gravity orders the states.
func (s State) gravity() int {
	for i, other := range []State{InStep, Waiting, Behind, Ahead, Diverged, ActiveAtTarget} {
		if s == other {
			return i
		}
	}
	return 7
}

// position is a commit of ours: the source offset it stands for, and the
// target offset committed.
type position struct{ up, down int64 }

// memory is what we last committed for a group and partition: one position,
// or two while it is not known whether the newer one arrived.
type memory struct {
	standing, intended position
	stands, intends    bool
}

// match finds the commit of ours that left the target at an offset. Of two,
// the newer.
func (m memory) match(target int64) (p position, mine bool) {
	switch {
	case target < 0:
		return position{}, false
	case m.intends && m.intended.down == target:
		return m.intended, true
	case m.stands && m.standing.down == target:
		return m.standing, true
	default:
		return position{}, false
	}
}

// lowest returns the lower target offset that we may have left.
func (m memory) lowest() (target int64, ok bool) {
	switch {
	case m.stands && m.intends:
		return min(m.standing.down, m.intended.down), true
	case m.stands:
		return m.standing.down, true
	default:
		return m.intended.down, m.intends
	}
}

// settle notes what is known to stand now.
func (m *memory) settle(p position) { *m = memory{standing: p, stands: true} }

// intend notes a commit that is about to be tried while the target stands at
// an offset (-1: nowhere). If it fails, that is what we left. An offset that
// somebody else committed is kept without a source offset: the source never
// went back behind it.
func (m *memory) intend(p position, target int64) {
	standing, _ := m.match(target)
	standing.down = target
	*m = memory{standing: standing, stands: target >= 0, intended: p, intends: true}
}

// view is what a judgement rests on, for one partition of a group.
type view struct {
	source int64       // committed on the source
	at     Translation // its translation
	mapped bool        // there is one
	target int64       // committed on the target; -1: nothing
	active bool        // the target's group has members
	ours   memory
}

// judge decides whether the translated offset is committed to the target. The
// rules: never to a group with members; never backwards, unless the source
// went back and the target still stands where we put it; and what somebody
// else moved back is left to them, while what they moved on is overtaken when
// the source's group gets further.
func judge(v view) (state State, commit bool) {
	to := v.at.Offset
	ours, mine := v.ours.match(v.target)
	lowest, known := v.ours.lowest()
	switch {
	case !v.mapped:
		return Waiting, false
	case v.active:
		return ActiveAtTarget, false
	case v.target == to && v.at.Shortfall > 0:
		return Waiting, false
	case v.target == to:
		return InStep, false
	case v.target < 0:
		return Behind, true
	case mine && (to > v.target || v.source < ours.up):
		return Behind, true
	case to < v.target:
		return Ahead, false
	case !known || v.target > lowest:
		return Behind, true
	default:
		return Diverged, false
	}
}
