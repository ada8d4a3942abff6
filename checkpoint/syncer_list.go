package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"kmirror/topology"
)

const (
	listEvery   = time.Second // between two lists of the groups
	listedCheap = 10_000      // so many groups are listed every second; more of them more seldom
)

// lister says when groups are listed. Up to listedCheap of them are every
// second. Of more, those with members are every second, and all the more seldom
// the more there are, so that lists cost the brokers the same; the same holds for
// those with members, where there are very many or the broker lists all.
type lister struct {
	retry  retry
	listed time.Time // when last, all or those with members
	all    time.Time // when all
	number int       // of groups, at either cluster
	some   int       // with members, or as many as were listed for it
	long   bool      // it has been said that a name is too long
	first  bool      // nothing was listed before: whoever has no members can wait
}

// list finds the groups of both sides, and which have members.
func (s *Syncer) list(ctx context.Context) {
	now := time.Now()
	since := now.Sub(s.listing.listed)
	if since < listEvery {
		return
	}
	var states []string
	all := now.Sub(s.listing.all) >= time.Duration(s.listing.number/listedCheap)*listEvery
	if !all {
		if states = statesWithMembers(); since < time.Duration(s.listing.some/listedCheap)*listEvery {
			return
		}
	}
	there, err := s.sourceGroups.list(ctx, states)
	complete := err == nil
	if err != nil {
		err = fmt.Errorf("source: %w", err)
	}
	here, hereComplete := map[string]groupListing(nil), false
	if s.flow.GroupSync.Enabled || s.carries() {
		var hereErr error
		if here, hereErr = s.targetGroups.list(ctx, states); hereErr != nil {
			err = errors.Join(err, fmt.Errorf("target: %w", hereErr))
		}
		hereComplete = hereErr == nil
	}
	if ctx.Err() != nil {
		return
	}
	s.listing.first = s.listing.listed.IsZero()
	s.listing.retry.note(err) // what is known already is synced all the same
	s.listing.listed = now
	if number := max(len(there), len(here)); all {
		s.listing.all, s.listing.number = now, number
	} else {
		s.listing.some = number
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meet(there, true)
	s.meet(here, false)
	if all {
		s.miss(there, complete, here, hereComplete)
	}
}

// meet takes in who is on one side.
func (s *Syncer) meet(listed map[string]groupListing, source bool) {
	for name, l := range listed {
		g := s.groups[name]
		if g == nil {
			forth, carry, any := s.wants(name)
			if !any || !source && !carry || !l.consumers() {
				continue
			}
			if len(name) > math.MaxInt16 {
				if !s.listing.long {
					s.listing.long = true
					s.log.Warn("a group's name is longer than a checkpoint can say; it is not followed", slog.Int("bytes", len(name)))
				}
				continue
			}
			g = &group{name: name, forth: forth, carry: carry, dirty: true}
			s.groups[name] = g
			s.looks.add(g, !s.listing.first || l.members())
		}
		if source {
			g.seen, g.missing = true, 0
		}
		// An old broker does not say; a refusal tells, for a while.
		if l.state != "" || time.Since(g.refused) >= sweepEvery {
			s.members(g, source, l.members())
		}
	}
}

// members notes whether a group has members on one side.
func (s *Syncer) members(g *group, source, some bool) {
	known := &g.active
	if source {
		known = &g.busy
	}
	if *known == some {
		return
	}
	*known = some
	g.dirty = true
	s.looks.add(g, true)
}

// miss takes in who is not there any more. A group that is gone from the source
// stands no longer in two lists in a row, and something else does: a cluster that
// lists nothing at all has lost its groups, or is another one.
func (s *Syncer) miss(there map[string]groupListing, complete bool, here map[string]groupListing, hereComplete bool) {
	for name, g := range s.groups {
		_, onSource := there[name]
		_, onTarget := here[name]
		if !onTarget && hereComplete {
			s.members(g, false, false)
		}
		if onSource || !complete {
			continue
		}
		s.members(g, true, false)
		g.missing++
		switch {
		case s.flow.GroupSync.Deleted == topology.GroupDeletedDelete && g.forth && g.seen:
			if g.missing >= 2 && len(there) > 0 {
				s.deleting[name] = true
			}
		case g.carry && (onTarget || !hereComplete): // it lives on there
		default:
			s.forget(g)
		}
	}
}

// forget lets go of a group.
func (s *Syncer) forget(g *group) {
	for at, p := range g.parts {
		s.release(g, p, at)
	}
	s.looks.drop(g)
	delete(s.groups, g.name)
	delete(s.deleting, g.name)
	s.sourceGroups.forget(g.name)
	s.targetGroups.forget(g.name)
}
