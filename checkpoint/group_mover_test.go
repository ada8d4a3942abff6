package checkpoint_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/topology"
)

// What an operator moved is kmirror's own, also if none runs from then until the
// group has moved on: on either side, and back.
func TestMovedByHandWhileNoneRuns(t *testing.T) {
	for _, c := range []struct {
		what     string
		carry    bool // the flow carries groups back
		failback bool
		lost     bool // the answer to the commit
		source   int64
		target   int64 // where that is moved on, in offsets of the source; 0: not at all
		want     int64
	}{
		{"adopt, on at the source", false, false, false, 200, 0, 200},
		{"adopt, back at the source", false, false, false, 20, 0, 20},
		{"adopt, on at the target", true, false, false, 0, 200, 200},
		{"adopt, back at the target", true, false, false, 0, 20, 20},
		{"adopt, unanswered, on at the source", true, false, true, 200, 0, 200},
		{"failback, on at the source", false, true, false, 200, 0, 200},
		{"failback, back at the source", true, true, false, 20, 0, 20},
		{"failback, on at the target", true, true, false, 0, 200, 200},
		{"failback, back at the target", true, true, false, 0, 20, 20},
		{"failback, unanswered, on at the target", true, true, true, 0, 200, 200},
	} {
		t.Run(c.what, func(t *testing.T) {
			between(t, func(f *topology.Flow) { f.GroupSync.Failback = c.carry }, func(p *pair) {
				t := p.t
				p.east.commit("billing", "orders", 0, 50)
				p.stands("billing", checkpoint.InStep, p.there(50))
				p.stop()
				p.east.commit("billing", "orders", 0, 60) // both move
				p.west.commit("billing", "east.orders", 0, p.there(100))
				if c.lost {
					lose := func(req kmsg.Request) (bool, error) {
						if _, ok := req.(*kmsg.OffsetCommitRequest); ok {
							return true, errors.New("connection lost")
						}
						return true, nil
					}
					p.east.fault, p.west.fault = lose, lose
				}
				done := p.move(c.failback, "billing")
				if m := done[0].Moves[0]; m.Done == c.lost || m.Unwritten != "" {
					t.Fatalf("got %+v", done)
				}
				p.east.fault, p.west.fault = nil, nil
				if c.source > 0 {
					p.east.commit("billing", "orders", 0, c.source)
				}
				if c.target > 0 {
					p.west.commit("billing", "east.orders", 0, p.there(c.target))
				}
				p.begin()
				p.stands("billing", checkpoint.InStep, p.there(c.want))
				if got := p.east.at("billing", "orders", 0); got != c.want {
					t.Errorf("the source's group stands at %d, want %d", got, c.want)
				}
			})
		})
	}
}

// A move that was not made leaves no trace, one that cannot be written down is made all
// the same, and one that needs no commit is written down once.
func TestNotesOfMoves(t *testing.T) {
	between(t, nil, func(p *pair) {
		t := p.t
		notes := func() int { return len(p.west.topics[p.flow.CheckpointsTopic()]) }
		p.east.commit("billing", "orders", 0, 50)
		p.stands("billing", checkpoint.InStep, p.there(50))
		p.stop()
		p.west.commit("billing", "east.orders", 0, p.there(100))
		mover, plans := p.moves(false, "billing")
		before := notes()
		p.west.members("billing", true)
		if done := mover.Apply(t.Context(), plans); done[0].Moves[0].Done || !strings.Contains(done[0].Moves[0].Refused, "members") {
			t.Fatalf("got %+v", done)
		}
		if notes() != before+2 {
			t.Errorf("%d notes, want it written down and taken back", notes()-before)
		}
		p.west.members("billing", false)
		p.begin()
		p.stands("billing", checkpoint.Diverged, p.there(100))
		p.stop()

		p.west.readOnly = errBroken
		if done := p.move(false, "billing"); !done[0].Moves[0].Done || !strings.Contains(done[0].Moves[0].Unwritten, errBroken.Error()) {
			t.Fatalf("got %+v", done)
		}
		p.west.readOnly = nil
		p.west.commit("new", "east.orders", 0, p.there(70)) // by another's hand
		p.east.commit("new", "orders", 0, 70)
		before = notes()
		p.move(false, "new")
		p.move(false, "new")
		if notes() != before+1 {
			t.Errorf("%d notes about a place where both stand, want 1", notes()-before)
		}
		p.move(false, "nobody")
		p.begin()
		p.rest()
	})
}

// Of a topic that two sites write, one of the two flows keeps the memory: a move by way
// of the other is written down there.
func TestMovedByHandAlongTheOtherFlow(t *testing.T) {
	for _, failback := range []bool{false, true} {
		between(t, nil, func(p *pair) {
			t := p.t
			p.stop()
			stop, routes := p.bothWays(topology.Identity)
			p.east.commit("billing", "orders", 0, 30)
			p.rest()
			p.rest()
			stop()
			p.east.commit("billing", "orders", 0, 300) // both move
			p.west.commit("billing", "orders", 0, 200)
			mover := checkpoint.NewGroupMover(routes[1], p.west, p.east, quiet())
			any := func(string) bool { return true }
			if err := mover.Recall(t.Context(), any, any); err != nil {
				t.Fatal(err)
			}
			source, target, err := mover.Read(t.Context(), any, []string{"billing"})
			if err != nil {
				t.Fatal(err)
			}
			plans := mover.Adopt(source, target, []string{"billing"})
			if failback {
				plans = mover.Failback(t.Context(), source, target, []string{"billing"}, func(string, int32) int64 { return -1 })
			}
			if done := mover.Apply(t.Context(), plans); !done[0].Moves[0].Done || done[0].Moves[0].Unwritten != "" {
				t.Fatalf("got %+v", done)
			}
			before := p.west.at("billing", "orders", 0)
			p.east.commit("billing", "orders", 0, 500)
			stop, _ = p.bothWays(topology.Identity)
			p.rest()
			p.rest()
			stop()
			if got := p.west.at("billing", "orders", 0); got <= before {
				t.Errorf("failback %v: the west's group stands at %d, where it was put", failback, got)
			}
		})
	}
}

// A group that stood beyond what was mirrored went on at the end of that: what others
// wrote there it has read, though more is mirrored behind it by now.
func TestLocalRecordsReadAfterAShortfall(t *testing.T) {
	between(t, nil, func(p *pair) {
		t := p.t
		mirrored, end, _ := p.maps.Runs("", "", 0).End()
		p.east.commit("billing", "orders", 0, mirrored+8)
		p.stands("billing", checkpoint.Waiting, end)
		p.stop()
		p.west.commit("billing", "east.orders", 0, end+2) // of three that others wrote
		p.maps.grow(2)
		_, plans := p.moves(true, "billing")
		if m := plans[0].Moves[0]; m.LocalRead != 2 {
			t.Errorf("%d records written locally were read, want 2: %+v", m.LocalRead, m)
		}
	})
}

// One broker that does not answer leaves what the others know. What it alone knows is
// said to be unknown, and not touched.
func TestOneBrokerDoesNotAnswer(t *testing.T) {
	between(t, nil, func(p *pair) {
		t := p.t
		p.stop()
		for _, s := range []*side{p.east, p.west} {
			s.brokers = 2
			for _, name := range []string{"even", "odd"} {
				s.commit(name, "orders", 0, 60)
				s.commit(name, "east.orders", 0, 40)
			}
		}
		p.east.silent = 2
		var unlisted *checkpoint.UnlistedError
		states := map[string]string{}
		s := checkpoint.NewSyncer(checkpoint.Routes{Forward: checkpoint.Route{Flow: p.flow, Maps: p.maps}}, p.east, p.west, quiet())
		err := s.Look(t.Context(), false, func(string) bool { return true }, func(lot []checkpoint.GroupStatus) error {
			for _, g := range lot {
				states[g.Group] = g.State
			}
			return nil
		})
		if !errors.As(err, &unlisted) || len(unlisted.Brokers) != 1 || unlisted.Brokers[0] != 2 {
			t.Errorf("got %v", err)
		}
		if states["even"] != string(checkpoint.Diverged) || states["odd"] != string(checkpoint.Failed) {
			t.Errorf("got %v", states)
		}
		mover := checkpoint.NewGroupMover(checkpoint.Routes{Forward: checkpoint.Route{Flow: p.flow, Maps: p.maps}}, p.east, p.west, quiet())
		source, target, err := mover.Read(t.Context(), func(string) bool { return true }, []string{"absent"})
		if !errors.As(err, &unlisted) {
			t.Errorf("got %v", err)
		}
		for _, plans := range [][]checkpoint.GroupPlan{
			mover.Failback(t.Context(), source, target, nil, func(string, int32) int64 { return -1 }),
			mover.Adopt(source, target, []string{"even", "odd"}),
		} {
			if len(plans) != 2 || plans[0].Refused != "" || !strings.Contains(plans[1].Refused, "could not be read") {
				t.Errorf("got %+v", plans)
			}
		}
		p.east.brokers, p.east.silent = 1, 1
		if err := s.Look(t.Context(), false, func(string) bool { return true }, nil); err == nil || errors.As(err, &unlisted) {
			t.Errorf("got %v of a cluster that does not answer", err)
		}
		p.begin()
	})
}

// Who has read what the map does not hold yet would read it again: the plan says so. Who
// has read what others wrote there would not.
func TestFailbackFromBeyondTheMap(t *testing.T) {
	for _, c := range []struct {
		what  string
		ours  bool
		exact bool
		local int64
	}{{"ours", true, false, -1}, {"others'", false, true, 3}} {
		t.Run(c.what, func(t *testing.T) {
			between(t, nil, func(p *pair) {
				p.east.commit("billing", "orders", 0, 995)
				p.rest()
				p.stop()
				mirrored, end, _ := p.maps.Runs("", "", 0).End()
				p.west.write("east.orders", end, 3, map[bool]int64{true: oursID, false: 99}[c.ours])
				p.west.commit("billing", "east.orders", 0, end+3)
				_, plans := p.moves(true, "billing")
				if m := plans[0].Moves[0]; m.To != mirrored || m.Exact != c.exact || m.LocalRead != c.local {
					p.t.Errorf("got %+v", m)
				}
			})
		})
	}
}
