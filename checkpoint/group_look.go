package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// lookAtOnce is how many groups Look has in memory at a time.
const lookAtOnce = 1000

// Look says how groups stand, as Run would judge them, and changes nothing on
// either cluster. It is for a Syncer that does not run. Groups for which want
// holds are handed to each in the order of their names, in lots, so that there
// may be a great many; of these, groups without offsets on mirrored topics are
// left out. remembered says that NotesTopic exists. The error of each ends the
// look. An *UnlistedError does not: it comes when all that is known was handed over.
func (s *Syncer) Look(ctx context.Context, remembered bool, want func(group string) bool, each func([]GroupStatus) error) error {
	if remembered {
		if err := s.recall(ctx); err != nil {
			return err
		}
	}
	var unlisted *UnlistedError
	there, thereErr := s.sourceGroups.list(ctx, nil)
	if thereErr != nil {
		thereErr = fmt.Errorf("source: %w", thereErr)
	}
	here, hereErr := s.targetGroups.list(ctx, nil)
	if hereErr != nil {
		hereErr = fmt.Errorf("target: %w", hereErr)
	}
	for _, err := range []error{thereErr, hereErr} {
		if err != nil && !errors.As(err, &unlisted) {
			return err
		}
	}
	if thereErr != nil { // who is on the target may be there as well: it is asked for
		for name, l := range here {
			if _, both := there[name]; !both && l.consumers() {
				there[name] = groupListing{}
			}
		}
	}
	var wanted []string
	for name := range there {
		if want(name) {
			wanted = append(wanted, name)
		}
	}
	for name := range here {
		if _, both := there[name]; !both && want(name) {
			wanted = append(wanted, name)
		}
	}
	slices.Sort(wanted)
	for lot := range slices.Chunk(wanted, lookAtOnce) {
		statuses := s.lookAt(ctx, lot, there, here)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := each(statuses); err != nil {
			return err
		}
	}
	return errors.Join(thereErr, hereErr)
}

// NotesTopic is where it is written down, on the target, what was committed.
func (s *Syncer) NotesTopic() string { return s.notes.name }

// lookAt judges some groups.
func (s *Syncer) lookAt(ctx context.Context, lot []string, there, here map[string]groupListing) []GroupStatus {
	now := time.Now()
	some := func(listed map[string]groupListing) map[string]groupListing {
		part := make(map[string]groupListing, len(lot))
		for _, name := range lot {
			if l, ok := listed[name]; ok {
				part[name] = l
			}
		}
		return part
	}
	s.mu.Lock()
	s.meet(some(there), true)
	s.meet(some(here), false)
	var chosen []*group
	for _, name := range lot {
		if g := s.groups[name]; g != nil {
			chosen = append(chosen, g)
		}
	}
	s.mu.Unlock()
	s.takeSource(chosen, s.sourceGroups.fetch(ctx, names(chosen)), now)
	s.takeTarget(chosen, s.targetGroups.fetch(ctx, names(chosen)), now)
	for s.lookBeyond(ctx, chosen, now) {
	}
	s.judgeAll(chosen, now) // what follows from it is not done
	s.mu.Lock()
	defer s.mu.Unlock()
	statuses := make([]GroupStatus, 0, len(chosen))
	for _, g := range chosen {
		if len(g.parts) > 0 || g.err != nil {
			statuses = append(statuses, g.status(g.name))
		}
		s.forget(g)
	}
	return statuses
}

// Gravity orders states by how much they want somebody's look.
func Gravity(state string) int { return State(state).gravity() }

// States are all of them, the gravest last.
func States() []string {
	var all []string
	for _, s := range states() {
		all = append(all, string(s))
	}
	return all
}

// Census counts the groups in each state.
func (s *Syncer) Census() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := map[string]int{}
	for _, g := range s.groups {
		if len(g.parts) > 0 {
			states[string(g.worst())]++
		}
	}
	return states
}

// worst is the gravest state of its partitions. It is called with the syncer's
// mu held.
func (g *group) worst() State {
	worst := InStep
	if g.err != nil {
		worst = Failed
	}
	for _, p := range g.parts {
		state := p.state
		if p.err != nil {
			state = Failed
		}
		if state.gravity() > worst.gravity() {
			worst = state
		}
	}
	return worst
}
