package checkpoint

import "slices"

// State is how a group, or one partition of it, stands on the two sides.
type State string

// The states. That of a group is the gravest of its partitions, in this order.
const (
	// InStep: the target's group stands where the source's does.
	InStep State = "in-step"
	// Waiting: nothing of the partition is mirrored yet, or the group is beyond
	// what is; it stands at the mirrored end, and the shortfall is what a
	// failover now would lose.
	Waiting State = "waiting"
	// Behind: a commit to the target is due.
	Behind State = "behind"
	// Returning: the target's group has moved on, and a commit to the source is
	// due; or will be, when the map holds what the group has read.
	Returning State = "returning"
	// DeletedAtSource: the group, or its offset, was deleted there; what it has on
	// the target stays.
	DeletedAtSource State = "deleted-at-source"
	// ActiveAtTarget: the group has members there, so it is not touched there.
	ActiveAtTarget State = "active-at-target"
	// ActiveAtSource: the target's group has moved on and would be carried back,
	// but the group has members on the source, so it is not touched there.
	ActiveAtSource State = "active-at-source"
	// Diverged: somebody moved the target's group since we last wrote, on or
	// back, or what it stood behind was lost there. It is left alone until both
	// stand at the same place, or its offset on the target is put back or deleted,
	// or the operator says so.
	Diverged State = "diverged"
	// Failed: see the error.
	Failed State = "error"
)

// gravity orders the states.
func (s State) gravity() int {
	all := states()
	if i := slices.Index(all, s); i >= 0 {
		return i
	}
	return len(all)
}

func states() []State {
	return []State{InStep, Waiting, Behind, Returning, DeletedAtSource, ActiveAtTarget, ActiveAtSource, Diverged, Failed}
}

// position is a place at which a group stood on both sides: its offset on the
// source, and that on the target.
type position struct{ up, down int64 }

// memory is what is known of a group and partition from before: where both
// sides last stood at the same place (standing), because we committed it or
// because we saw it, and the commit that was announced since and of which it is
// not known whether it arrived (intended): of the target's offset, or of the
// source's where it goes back.
type memory struct {
	standing, intended position
	stands, intends    bool
	back               bool // intended is a commit to the source
	// Standing is where the map ended, and the target beyond it: records that others
	// wrote lie between, or ours that the map did not hold yet.
	short bool
}

// settle notes that both stand at the same place; short: as far as the map goes.
func (m *memory) settle(p position, short bool) {
	*m = memory{standing: p, stands: true, short: short}
}

// intend notes a commit to p that is about to be tried, on the side that stands
// where it was left at from (stands: it stands somewhere).
func (m *memory) intend(p position, back bool, from position, stands bool) {
	*m = memory{standing: from, stands: stands, intended: p, intends: true, back: back, short: m.short && stands && from == m.standing}
}

// deny forgets an announced commit when the side that it was meant for is seen
// where it stood before: it was not carried out. If it still is, late, the two
// sides stand at the same place, or somebody has moved meanwhile. It reports
// whether there was one.
func (m *memory) deny(p position) bool {
	before, after, seen := m.standing.down, m.intended.down, p.down
	if m.back {
		before, after, seen = m.standing.up, m.intended.up, p.up
	}
	if !m.intends || !m.stands || seen != before || seen == after {
		return false
	}
	m.intends, m.intended, m.back = false, position{}, false
	return true
}

// target says whether the target's offset is where we left it, and for which
// place. It is not sure when all that is known is that the source was about to
// be moved after it.
func (m memory) target(offset int64) (p position, mine, sure bool) {
	return m.match(func(p position) bool { return p.down == offset }, false)
}

// source says whether the source's offset is where it was when both last stood
// at the same place.
func (m memory) source(offset int64) (p position, mine, sure bool) {
	return m.match(func(p position) bool { return p.up == offset }, true)
}

// match asks about the target, or with back about the source. The side that an
// intended commit was for stands where it stood before or where it was to go. The
// other side was seen at the intended place when that was written down, so what
// it was before does not count.
func (m memory) match(is func(position) bool, back bool) (p position, mine, sure bool) {
	switch {
	case m.intends && is(m.intended):
		return m.intended, true, m.back == back
	case m.stands && (!m.intends || m.back == back) && is(m.standing):
		return m.standing, true, true
	default:
		return position{}, false, false
	}
}

// view is what a judgement rests on, for one partition of a group. Offsets are
// what is committed; -1: nothing.
type view struct {
	source, target int64
	there          Translation // of source, to the target
	mapped         bool
	back           Translation // of target, to the source
	backMapped     bool
	ahead          bool // the target's group has read what is to be carried back, and the map does not hold it yet
	busy, active   bool // the group has members on the source, on the target
	forth, carry   bool // the flow syncs the group; what moved on at the target is carried back
	ours           memory
}

// action is what follows from a judgement.
type action int8

const (
	leave    action = iota
	forward         // commit to the target
	backward        // commit to the source
)

// judge decides which side follows the other, if any. It is a merge of the two
// offsets with the place at which both last stood as base:
//
//	target where we left it     the source moved, or more is mirrored: the target
//	                            follows. Never backwards unless the source went
//	                            back: where the target's log was cut and mirrored
//	                            anew, so that it stands too far, it has diverged
//	target moved, source not    the source follows if that is wanted, by the same
//	                            rules with the sides exchanged
//	both moved, or no base      diverged: nobody is moved
//	nothing on the target       it is ours to write
//	nothing on the source       it is written if the target moved since it was
//	                            deleted, or was never seen there
//
// A side with members is never touched. Because each direction rests on the
// same base, a commit of ours is no movement to the other direction: there is no
// echo. And a reset at the source is a movement of the source, whatever the
// target's offset would translate to: it is carried forward, and never undone.
func judge(v view) verdict {
	var r verdict
	switch {
	case v.source < 0 && v.target < 0:
		return verdict{state: InStep}
	case v.source < 0:
		r = v.orphan()
	case !v.mapped:
		return verdict{state: Waiting}
	case v.target < 0:
		r = verdict{state: Behind, do: forward}
	default:
		r = v.merge()
	}
	switch {
	case r.do == forward && v.active:
		return verdict{state: ActiveAtTarget}
	case r.do == forward && !v.forth:
		return verdict{state: Behind}
	case r.do == backward && v.busy:
		return verdict{state: ActiveAtSource}
	case v.active: // the target's group is at work, whoever follows it
		r.state = ActiveAtTarget
	case r.state == InStep && v.ahead && v.carry:
		if r.state = Returning; v.busy {
			r.state = ActiveAtSource
		}
	case r.state == InStep && v.there.Shortfall > 0:
		r.state = Waiting
	}
	return r
}

// verdict is what judge says.
type verdict struct {
	state State
	do    action
	same  bool // both stand at the same place, or come to it
}

// orphan judges an offset that is on the target only.
func (v view) orphan() verdict {
	_, mine, sure := v.ours.target(v.target)
	if mine && sure || !v.carry || !v.backMapped {
		return verdict{state: DeletedAtSource}
	}
	return verdict{state: Returning, do: backward}
}

// merge judges two offsets.
func (v view) merge() verdict {
	if v.there.Offset == v.target {
		return verdict{state: InStep, same: true}
	}
	if p, mine, sure := v.ours.target(v.target); mine && sure {
		return v.follow(p, true)
	}
	if p, mine, sure := v.ours.source(v.source); mine && sure && v.carry {
		return v.lead(p, true)
	}
	if p, mine, _ := v.ours.target(v.target); mine {
		return v.follow(p, false)
	}
	if p, mine, _ := v.ours.source(v.source); mine && v.carry {
		return v.lead(p, false)
	}
	if v.backMapped && v.back.Offset == v.source && (v.back.Exact && !v.back.open() || v.carry && v.back.Slack == 0) {
		return verdict{state: InStep, same: true} // whoever put them there: an operator's failback
	}
	return verdict{state: Diverged}
}

// follow judges a target that stands where we left it for p.
func (v view) follow(p position, sure bool) verdict {
	to := v.there.Offset
	beyond := v.backMapped && v.back.Offset > v.source // the target's place lies behind what the source has read
	switch {
	case sure && v.source < p.up:
		return verdict{state: Behind, do: forward}
	case v.source == p.up && v.ours.short && p == v.ours.standing && v.carry && beyond:
		return verdict{state: Returning, do: backward} // the map has grown: they were ours
	case v.source == p.up && v.backMapped && v.back.Offset == v.source:
		return verdict{state: InStep} // the same place by the map inverted: others' records lie between
	case to > v.target:
		return verdict{state: Behind, do: forward}
	case v.there.Exact && beyond: // going on there would skip records; going back is the operator's to say
		return verdict{state: Diverged}
	default:
		return verdict{state: InStep}
	}
}

// lead judges a target that moved while the source stands where it was at p.
func (v view) lead(p position, sure bool) verdict {
	to := v.back.Offset
	switch {
	case !v.backMapped:
		return verdict{state: Diverged}
	case to == v.source:
		return verdict{state: InStep, same: true} // it moved among what others wrote there
	case to > v.source, sure && v.target < p.down:
		return verdict{state: Returning, do: backward}
	default:
		return verdict{state: Diverged}
	}
}
