package checkpoint_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// pair is two clusters in memory and a Syncer between them. Source offset u of
// any topic stands where mapped says.
type pair struct {
	t          *testing.T
	east, west *side
	maps       *mapped
	flow       *topology.Flow
	syncer     *checkpoint.Syncer
	stop       func()
}

func between(t *testing.T, change func(*topology.Flow), fn func(p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		flow, err := topology.NewFlow("east", "west", change)
		if err != nil {
			t.Fatal(err)
		}
		p := &pair{t: t, east: newSide(), west: newSide(), maps: newMapped(100), flow: flow}
		p.begin()
		fn(p)
		p.stop()
	})
}

func (p *pair) begin() {
	p.syncer = checkpoint.NewSyncer(checkpoint.Routes{Forward: checkpoint.Route{Flow: p.flow, Maps: p.maps}}, p.east, p.west, quiet())
	p.stop = start(p.t, p.syncer.Run)
}

// rest waits until a change has arrived, or would have.
func (p *pair) rest() {
	time.Sleep(3 * time.Second)
	synctest.Wait()
}

func (p *pair) there(offset int64) int64 {
	there, _ := p.maps.Translate("", "", 0, offset)
	return there.Offset
}

// looks compares how an operator sees a group who looks with no daemon's help.
func (p *pair) looks(group string, want checkpoint.State) {
	p.t.Helper()
	s := checkpoint.NewSyncer(checkpoint.Routes{Forward: checkpoint.Route{Flow: p.flow, Maps: p.maps}}, p.east, p.west, quiet())
	var found []checkpoint.GroupStatus
	err := s.Look(p.t.Context(), true, func(name string) bool { return name == group }, func(lot []checkpoint.GroupStatus) error {
		found = append(found, lot...)
		return nil
	})
	if err != nil || len(found) != 1 || found[0].State != string(want) {
		p.t.Errorf("a look at %s: %+v, %v; want %s", group, found, err, want)
	}
}

// states are those in which a group is seen for three seconds, from when it is seen
// at an offset of the target.
func (p *pair) states(group string, target int64) (seen []string) {
	for range 60 {
		time.Sleep(50 * time.Millisecond)
		for _, g := range p.syncer.Groups() {
			if g.Group == group && g.Partitions[0].TargetOffset == target {
				seen = append(seen, g.State)
			}
		}
	}
	return slices.Compact(seen)
}

// stands compares where a group stands on the target.
func (p *pair) stands(group string, state checkpoint.State, want int64) {
	p.t.Helper()
	p.rest()
	if got := p.west.at(group, "east.orders", 0); got != want {
		p.t.Errorf("%s stands at %d, want %d", group, got, want)
	}
	for _, g := range p.syncer.Groups() {
		if g.Group == group {
			if g.State != string(state) {
				p.t.Errorf("%s is %s, want %s: %+v", group, g.State, state, g)
			}
			return
		}
	}
	if state != "" {
		p.t.Errorf("%s is not followed, want it %s", group, state)
	}
}

// A group deleted on the source goes from the target as far as it was ours, and
// only if the policy says so; offsets on others' topics, such as those that
// another flow into the same hub follows, stay.
func TestAGroupDeletedOnTheSource(t *testing.T) {
	for _, failback := range []bool{false, true} {
		for _, policy := range []topology.GroupDeleted{topology.GroupDeletedKeep, topology.GroupDeletedDelete} {
			t.Run(fmt.Sprint(policy, " failback ", failback), func(t *testing.T) {
				between(t, func(f *topology.Flow) { f.GroupSync.Deleted, f.GroupSync.Failback = policy, failback }, func(p *pair) {
					t := p.t
					for _, group := range []string{"billing", "moved", "busy", "other"} {
						p.east.commit(group, "orders", 0, 50)
					}
					p.stands("billing", checkpoint.InStep, p.there(50))
					p.stands("moved", checkpoint.InStep, p.there(50))
					p.west.commit("billing", "north.orders", 0, 7)
					p.east.members("moved", true) // so that it is not carried back
					p.west.commit("moved", "east.orders", 0, 60)
					p.west.members("busy", true)
					p.rest()
					for _, group := range []string{"billing", "moved", "busy"} {
						p.east.delete(group)
					}
					p.rest()
					p.rest()
					want := p.there(50)
					if policy == topology.GroupDeletedDelete {
						want = -1
					}
					if got := p.west.at("billing", "east.orders", 0); got != want {
						t.Errorf("billing stands at %d, want %d", got, want)
					}
					if got := p.west.at("billing", "north.orders", 0); got != 7 {
						t.Errorf("the other flow's offset is %d", got)
					}
					if got := p.west.at("moved", "east.orders", 0); got != 60 {
						t.Errorf("what somebody moved stands at %d", got)
					}
					if got := p.west.at("busy", "east.orders", 0); got != p.there(50) {
						t.Errorf("a group with members stands at %d", got)
					}
					if got := p.east.at("billing", "orders", 0); got != -1 {
						t.Errorf("what was deleted is back at %d", got)
					}
					p.east.commit("billing", "orders", 0, 20) // it is made anew
					p.stands("billing", checkpoint.InStep, p.there(20))
				})
			})
		}
	}
}

// Of a source that lists nothing at all, nothing is taken for deleted.
func TestASourceThatLostItsGroups(t *testing.T) {
	between(t, func(f *topology.Flow) { f.GroupSync.Deleted = topology.GroupDeletedDelete }, func(p *pair) {
		p.east.commit("billing", "orders", 0, 50)
		p.stands("billing", checkpoint.InStep, p.there(50))
		p.east.delete("billing")
		p.rest()
		p.stands("billing", checkpoint.DeletedAtSource, p.there(50))
	})
}

// Without checkpoints, what was committed is remembered in a topic of ours, which
// all flows into the cluster share.
func TestMemoryWithoutCheckpoints(t *testing.T) {
	between(t, func(f *topology.Flow) { f.Checkpoints = false }, func(p *pair) {
		t := p.t
		p.east.commit("billing", "orders", 0, 50)
		p.east.commit("moved", "orders", 0, 50)
		p.stands("billing", checkpoint.InStep, p.there(50))
		p.stop()
		p.east.commit("billing", "orders", 0, 20)
		p.east.commit("moved", "orders", 0, 20)
		p.west.commit("moved", "east.orders", 0, 3)
		other := checkpoint.EncodeCheckpoint(checkpoint.Checkpoint{Group: "moved", Topic: "north.orders", Upstream: 3, Downstream: 3})
		if _, err := p.west.Append(t.Context(), checkpoint.GroupsTopic, 0, []wire.Record{other, {Key: []byte("?"), Value: []byte("?")}}); err != nil {
			t.Fatal(err)
		}
		p.begin()
		p.stands("billing", checkpoint.InStep, p.there(20))
		p.stands("moved", checkpoint.Diverged, 3)
		if n := p.syncer.Skipped(); n != 1 {
			t.Errorf("%d records skipped, want 1", n)
		}
		if len(p.west.topics[p.flow.CheckpointsTopic()]) > 0 {
			t.Error("checkpoints were written")
		}
	})
}

// The leader epoch of a source's commit says nothing on the target: there the
// partition's own is committed.
func TestLeaderEpochs(t *testing.T) {
	between(t, nil, func(p *pair) {
		t := p.t
		synctest.Wait()
		p.west.epochs["east.orders"] = 7
		p.east.group("bears one").offsets[kafka.TopicPartition{Topic: "orders"}] = checkpointed{offset: 10, epoch: 42, metadata: "mine"}
		p.east.commit("plain", "orders", 0, 10)
		p.rest()
		at := kafka.TopicPartition{Topic: "east.orders"}
		if got := p.west.group("bears one").offsets[at]; got != (checkpointed{p.there(10), 7, "mine"}) {
			t.Errorf("got %+v", got)
		}
		if got := p.west.group("plain").offsets[at]; got.epoch != -1 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAbsurdOffsetsAndNames(t *testing.T) {
	between(t, nil, func(p *pair) {
		binary, long := "\x00\xff\u202e", strings.Repeat("n", math.MaxInt16)
		p.east.commit("far", "orders", 0, math.MaxInt64)
		p.east.commit("none", "orders", 0, -5)
		p.east.commit("nowhere", "orders", -3, 5)
		p.east.commit(binary, "orders", 0, 10)
		p.east.commit(long, "orders", 0, 10)
		p.east.commit(long+"n", "orders", 0, 10)
		p.east.commit("", "orders", 0, 10)
		p.west.commit("beyond", "east.orders", 0, math.MaxInt64)
		p.east.commit("beyond", "orders", 0, 10)
		_, end, _ := p.maps.Runs("", "", 0).End()
		p.stands("far", checkpoint.Waiting, end)
		p.stands(binary, checkpoint.InStep, p.there(10))
		p.stands(long, checkpoint.InStep, p.there(10))
		p.stands("beyond", checkpoint.Diverged, math.MaxInt64)
		for _, group := range []string{"none", "nowhere", long + "n", ""} {
			p.stands(group, "", -1)
		}
		p.stop()
		p.east.commit("far", "orders", 0, 10)
		p.begin()
		p.stands("far", checkpoint.InStep, p.there(10))
	})
}

// Answers about groups and partitions that nobody asked for, or about none.
func TestAnswersThatLie(t *testing.T) {
	strange := func(resp kmsg.Response) {
		switch resp := resp.(type) {
		case *kmsg.OffsetFetchResponse:
			one := kmsg.NewOffsetFetchResponseGroup()
			one.Group = "never heard of"
			one.Topics = []kmsg.OffsetFetchResponseGroupTopic{{Topic: "orders", Partitions: []kmsg.OffsetFetchResponseGroupTopicPartition{{Partition: -1, Offset: 3}, {Partition: 1 << 30, Offset: 3}}}}
			resp.Groups = append(resp.Groups, one)
		case *kmsg.FindCoordinatorResponse:
			resp.Coordinators = append(resp.Coordinators, kmsg.FindCoordinatorResponseCoordinator{Key: "nobody", NodeID: -7})
		case *kmsg.OffsetCommitResponse:
			resp.Topics = append(resp.Topics, kmsg.OffsetCommitResponseTopic{Topic: "nothing", Partitions: []kmsg.OffsetCommitResponseTopicPartition{{Partition: 9, ErrorCode: 3}}})
		}
	}
	between(t, nil, func(p *pair) {
		p.east.lie(strange)
		p.west.lie(strange)
		p.east.commit("billing", "orders", 0, 50)
		p.stands("billing", checkpoint.InStep, p.there(50))
		p.west.lie(func(resp kmsg.Response) {
			if commit, ok := resp.(*kmsg.OffsetCommitResponse); ok {
				commit.Topics = nil
			}
		})
		p.east.commit("billing", "orders", 0, 60)
		p.stands("billing", checkpoint.InStep, p.there(60)) // carried out, and found there
		p.east.lie(func(resp kmsg.Response) {
			if fetch, ok := resp.(*kmsg.OffsetFetchResponse); ok {
				fetch.Groups = nil
			}
		})
		p.east.commit("billing", "orders", 0, 70)
		p.stands("billing", checkpoint.Failed, p.there(60))
		p.east.lie(nil)
		p.west.lie(nil)
		p.stands("billing", checkpoint.InStep, p.there(70))
	})
}

// Many groups cost few requests, and a change of one that is at work arrives
// within two seconds.
func TestLooksAreBounded(t *testing.T) {
	for _, c := range []struct {
		groups, partitions int32
		requests           int // a second, to the source
	}{{100, 100, 8}, {20_000, 1, 20}} {
		t.Run(fmt.Sprint(c.groups, " groups of ", c.partitions), func(t *testing.T) {
			between(t, nil, func(p *pair) {
				t := p.t
				for i := range c.groups {
					for partition := range c.partitions {
						p.east.commit(fmt.Sprint("group-", i), "orders", partition, 500)
					}
				}
				time.Sleep(20 * time.Second)
				synctest.Wait()
				before := p.east.count()
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if n := (p.east.count() - before) / 5; n > c.requests {
					t.Errorf("%d requests a second to the source, want %d at most", n, c.requests)
				}
				p.east.members("group-3", true)
				time.Sleep(1500 * time.Millisecond)
				for i := range int64(3) {
					p.east.commit("group-3", "orders", 0, 510+i)
					time.Sleep(2 * time.Second)
					synctest.Wait()
					if got := p.west.at("group-3", "east.orders", 0); got != p.there(510+i) {
						t.Errorf("two seconds after a commit of %d the target stands at %d, want %d", 510+i, got, p.there(510+i))
					}
				}
			})
		})
	}
}

// The offset map is written behind: who reads the copy at its end is, for a moment,
// beyond what the map holds. It is carried back as far as that, and the rest of the
// way when the map has grown; until then it is on its way. What others wrote there
// does not hold it up. Few fetches tell the one from the other.
func TestBackFromBeyondTheMap(t *testing.T) {
	for _, c := range []struct {
		what   string
		beyond int64 // the map's end; up to 3 are records of others
		lives  int   // that see it before the map grows
		state  checkpoint.State
	}{
		{"ours", 5, 1, checkpoint.Returning},
		{"a crash", 5, 2, checkpoint.Returning},
		{"two crashes", 5, 3, checkpoint.Returning},
		{"others'", 2, 1, checkpoint.InStep},
	} {
		t.Run(c.what, func(t *testing.T) {
			between(t, func(f *topology.Flow) { f.GroupSync.Failback = true }, func(p *pair) {
				t := p.t
				p.east.commit("billing", "orders", 0, 50)
				p.stands("billing", checkpoint.InStep, p.there(50))
				mirrored, end, _ := p.maps.Runs("", "", 0).End()
				at := end + c.beyond
				p.west.write("east.orders", end, 3, -1)
				p.west.write("east.orders", end+3, 9, oursID)
				p.west.commit("billing", "east.orders", 0, at)
				p.looks("billing", checkpoint.Returning)
				if seen := p.states("billing", at); !slices.Equal(seen, []string{string(c.state)}) {
					t.Errorf("the states were %v", seen)
				}
				p.stands("billing", c.state, at)
				p.looks("billing", c.state)
				if got := p.east.at("billing", "orders", 0); got != mirrored {
					t.Errorf("the source's group stands at %d, want %d", got, mirrored)
				}
				for range c.lives - 1 {
					p.stop()
					p.begin()
					p.rest()
				}
				p.stands("billing", c.state, at)
				p.west.members("billing", true)
				p.stands("billing", checkpoint.ActiveAtTarget, at)
				p.west.members("billing", false)
				p.stands("billing", c.state, at)
				if n := p.west.fetched(); n > 2*c.lives+2 {
					t.Errorf("%d fetches", n)
				}
				p.maps.grow(2)
				p.rest()
				p.stands("billing", checkpoint.InStep, at)
				want, _ := p.maps.Invert("", "", 0, at)
				if got := p.east.at("billing", "orders", 0); got != want.Offset {
					t.Errorf("the source's group stands at %d, want %d", got, want.Offset)
				}
				p.east.commit("billing", "orders", 0, want.Offset+4)
				p.stands("billing", checkpoint.InStep, p.there(want.Offset+4))
			})
		})
	}
}

// How much others wrote behind the end of the map, it is not all read to tell who
// stands there. Where everything of the source is in the map, nothing of it can be
// there; where it is not, that stays open.
func TestBeyondMuchOfOthers(t *testing.T) {
	for _, c := range []struct {
		what  string
		lacks int64 // offsets that are in the source, and not in the map
		state checkpoint.State
	}{{"all is mirrored", 0, checkpoint.InStep}, {"not all is mirrored", 1, checkpoint.Returning}} {
		t.Run(c.what, func(t *testing.T) {
			between(t, func(f *topology.Flow) { f.GroupSync.Failback = true }, func(p *pair) {
				t := p.t
				const batches = 200
				mirrored, end, _ := p.maps.Runs("", "", 0).End()
				p.east.end("orders", mirrored+1+c.lacks) // the last is a marker
				for i := range int64(batches) {
					p.west.writeRecords("east.orders", end+i, []wire.Record{{Value: make([]byte, 200<<10)}}, 99)
				}
				for i := range 100 { // all ask about one partition
					p.east.commit(fmt.Sprint("g", i), "orders", 0, 50)
				}
				p.stands("g7", checkpoint.InStep, p.there(50))
				for i := range 100 {
					p.west.commit(fmt.Sprint("g", i), "east.orders", 0, end+batches)
				}
				time.Sleep(time.Minute)
				p.stands("g7", c.state, end+batches)
				p.looks("g7", c.state)
				if n := p.west.fetched(); n > 150 {
					t.Errorf("%d fetches", n)
				}
			})
		})
	}
}

// Two sites that write one topic have its records in different orders, so there and
// back does not lead to the same place. After an operator's failback the group
// is kmirror's again all the same.
func TestFailbackEndsADivergence(t *testing.T) {
	between(t, func(f *topology.Flow) { f.GroupSync.Failback = true }, func(p *pair) {
		t := p.t
		_, end, _ := p.maps.Runs("", "", 0).End()
		p.east.commit("billing", "orders", 0, 50)
		p.west.commit("billing", "east.orders", 0, end+2) // at others' records
		p.stands("billing", checkpoint.Diverged, end+2)
		back, _ := p.maps.Invert("", "", 0, end+2)
		p.east.commit("billing", "orders", 0, back.Offset)
		p.stands("billing", checkpoint.InStep, end+2)
		p.west.commit("billing", "east.orders", 0, p.there(500))
		p.stands("billing", checkpoint.InStep, p.there(500))
		if got := p.east.at("billing", "orders", 0); got != 500 {
			t.Errorf("the source's group stands at %d, want 500", got)
		}
	})
}

// What is carried back and forth is known to have arrived: a reset while no kmirror
// runs is carried to the other side, whichever side it is on.
func TestAResetBetweenTwoLives(t *testing.T) {
	for _, c := range []struct {
		what        string
		back, there bool // the last commit was carried back; the reset is at the target
	}{{"forth, at the source", false, false}, {"forth, at the target", false, true}, {"back, at the source", true, false}, {"back, at the target", true, true}} {
		t.Run(c.what, func(t *testing.T) {
			between(t, func(f *topology.Flow) { f.GroupSync.Failback = true }, func(p *pair) {
				p.east.commit("billing", "orders", 0, 50)
				p.stands("billing", checkpoint.InStep, p.there(50))
				if c.back {
					p.west.commit("billing", "east.orders", 0, p.there(80))
					p.stands("billing", checkpoint.InStep, p.there(80))
				}
				p.stop()
				if c.there {
					p.west.commit("billing", "east.orders", 0, p.there(20))
				} else {
					p.east.commit("billing", "orders", 0, 20)
				}
				p.begin()
				p.stands("billing", checkpoint.InStep, p.there(20))
				if got := p.east.at("billing", "orders", 0); got != 20 {
					p.t.Errorf("the source's group stands at %d, want 20", got)
				}
			})
		})
	}
}
