package checkpoint_test

import (
	"strings"
	"testing"

	"kmirror/checkpoint"
	"kmirror/topology"
)

// moves reads both sides of a pair and makes a plan.
func (p *pair) moves(failback bool, names ...string) (*checkpoint.GroupMover, []checkpoint.GroupPlan) {
	p.t.Helper()
	mover := checkpoint.NewGroupMover(checkpoint.Routes{Forward: checkpoint.Route{Flow: p.flow, Maps: p.maps}}, p.east, p.west, quiet())
	any := func(string) bool { return true }
	if err := mover.Recall(p.t.Context(), any, any); err != nil {
		p.t.Fatal(err)
	}
	source, target, err := mover.Read(p.t.Context(), any, names)
	if err != nil {
		p.t.Fatal(err)
	}
	if !failback {
		return mover, mover.Adopt(source, target, names)
	}
	_, end, _ := p.maps.Runs("", "", 0).End()
	return mover, mover.Failback(p.t.Context(), source, target, names, func(string, int32) int64 { return end + 4 })
}

// move makes a plan and carries it out.
func (p *pair) move(failback bool, names ...string) []checkpoint.GroupPlan {
	p.t.Helper()
	mover, plans := p.moves(failback, names...)
	return mover.Apply(p.t.Context(), plans)
}

func TestFailbackAndAdopt(t *testing.T) {
	between(t, nil, func(p *pair) {
		t := p.t
		p.stop() // by hand
		p.east.commit("billing", "orders", 0, 50)
		p.west.commit("billing", "east.orders", 0, p.there(172)) // it read records of others at 45 and 93
		p.west.commit("billing", "local", 0, 3)
		p.west.commit("busy", "east.orders", 0, 5)
		p.west.members("busy", true)
		p.east.commit("absent", "orders", 0, 5)
		mover, plans := p.moves(true, "billing", "busy", "absent")
		if len(plans) != 3 || plans[0].Refused == "" || plans[2].Refused == "" || !strings.Contains(plans[2].Refused, "members") {
			t.Fatalf("got %+v", plans)
		}
		m := plans[1].Moves
		_, end, _ := p.maps.Runs("", "", 0).End()
		unread := int64(100/5-1)*3 - 3*3 + 4 // behind every fifth stretch but the last, three of which lie before, and four at the end
		if len(m) != 1 || m[0].From != 50 || m[0].To != 172 || m[0].LocalRead != 6 || m[0].LocalUnread != unread || !m[0].Exact {
			t.Fatalf("got %+v, want 6 read and %d unread of %d", m, unread, end)
		}

		// It moves between plan and deed.
		p.east.commit("billing", "orders", 0, 60)
		if done := mover.Apply(t.Context(), plans); done[1].Moves[0].Done || !strings.Contains(done[1].Moves[0].Refused, "moved") {
			t.Fatalf("got %+v", done)
		}
		done := p.move(true, "billing")
		if !done[0].Moves[0].Done || p.east.at("billing", "orders", 0) != 172 || p.west.at("billing", "local", 0) != 3 {
			t.Fatalf("got %+v", done)
		}

		p.west.commit("billing", "east.orders", 0, 7)
		done = p.move(false, "billing")
		if !done[0].Moves[0].Done || p.west.at("billing", "east.orders", 0) != p.there(172) {
			t.Fatalf("got %+v", done)
		}
		if _, again := p.moves(false, "billing"); !again[0].Moves[0].Done {
			t.Errorf("got %+v, want nothing to do", again)
		}
		p.begin()
		p.stands("billing", checkpoint.InStep, p.there(172))
	})
}

// Groups of both sites' topics, and of topics that both write under one name.
func TestBothWays(t *testing.T) {
	for _, naming := range []topology.Naming{topology.Prefixed, topology.Identity} {
		t.Run(string(naming), func(t *testing.T) {
			between(t, nil, func(p *pair) {
				t := p.t
				p.stop()
				stop, _ := p.bothWays(naming)
				copied := "east.orders"
				if naming == topology.Identity {
					copied = "orders"
				}
				p.east.commit("billing", "orders", 0, 30)
				p.rest()
				there := p.west.at("billing", copied, 0)
				if there < 0 {
					t.Fatal("the group is not in the west")
				}
				for range 20 {
					p.rest()
				}
				if got := p.east.at("billing", "orders", 0); got != 30 {
					t.Errorf("an echo: it stands at %d in the east", got)
				}
				p.west.commit("billing", copied, 0, there+9)
				p.rest()
				p.rest()
				back := p.east.at("billing", "orders", 0)
				if back <= 30 {
					t.Errorf("not carried back: it stands at %d in the east", back)
				}
				p.east.commit("billing", "orders", 0, 10) // a reset is carried, not undone
				p.rest()
				p.rest()
				if got := p.east.at("billing", "orders", 0); got != 10 {
					t.Errorf("a reset at 10 is at %d", got)
				}
				if got := p.west.at("billing", copied, 0); got < 0 || got > there {
					t.Errorf("the reset has not arrived: %d", got)
				}
				stop()
			})
		})
	}
}

// bothWays runs the Syncers of flows both ways. The east produces what mapped
// says, the west nothing.
func (p *pair) bothWays(naming topology.Naming) (stop func(), routes [2]checkpoint.Routes) {
	var flows [2]*topology.Flow
	for i, ends := range [][2]string{{"east", "west"}, {"west", "east"}} {
		flow, err := topology.NewFlow(ends[0], ends[1], func(f *topology.Flow) { f.Naming = naming })
		if err != nil {
			p.t.Fatal(err)
		}
		flows[i] = flow
	}
	nothing := newMapped(0)
	nothing.runs.Begin(0, 0)
	nothing.runs.Pass(1 << 20)
	maps := [2]*mapped{p.maps, nothing}
	var stops []func()
	for i, sides := range [][2]*side{{p.east, p.west}, {p.west, p.east}} {
		routes[i] = checkpoint.Routes{
			Forward:  checkpoint.Route{Flow: flows[i], Maps: maps[i]},
			Opposite: checkpoint.Route{Flow: flows[1-i], Maps: maps[1-i]},
		}
		s := checkpoint.NewSyncer(routes[i], sides[0], sides[1], quiet())
		stops = append(stops, start(p.t, s.Run))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}, routes
}
