package checkpoint_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// mapped is the offset map of one topic, all partitions alike: stretches of nine
// records and a marker on the source; on the target others write three records
// behind every fifth stretch.
type mapped struct {
	mu    sync.Mutex
	runs  checkpoint.Runs
	count int64 // stretches mirrored
	ready chan struct{}
}

func newMapped(stretches int64) *mapped {
	m := &mapped{ready: make(chan struct{})}
	close(m.ready)
	m.grow(stretches)
	return m
}

func (m *mapped) grow(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		if err := m.runs.Add(checkpoint.Run{Source: 10 * m.count, Target: 9*m.count + m.count/5*3, Count: 9}); err != nil {
			panic(err)
		}
		m.count++
	}
	m.runs.Pass(10 * m.count)
}

// oursID is the flow's producer id.
const oursID = 7

func (m *mapped) Wrote(_ string, producerID int64) bool { return producerID == oursID }

func (m *mapped) Ready() <-chan struct{} { return m.ready }

func (m *mapped) Translate(_, _ string, _ int32, offset int64) (checkpoint.Translation, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.runs.Forward(offset), true
}

func (m *mapped) Invert(_, _ string, _ int32, offset int64) (checkpoint.Translation, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.runs.Backward(offset), true
}

func (m *mapped) Through(string, string, int32) (int64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.runs.Through(), true
}

func (m *mapped) Behind(_, _ string, _ int32, offset int64) (int64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.runs.Behind(offset), true
}

func (m *mapped) Runs(string, string, int32) *checkpoint.Runs {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.runs.Clone()
}

// modelled is a group in the model: who moved it last on each side since both
// last stood at the same place.
type modelled struct {
	name        string
	left, right int64 // what stands on the source and the target, as the model has it
	touched     [2]bool
	stood       [8][2]int64       // the last places at which both stood, more than the Syncer saw: back there is where it was left
	theirs      [2]bool           // what stands there was put there by somebody
	lost        bool              // a commit of the Syncer was not carried out, and it does not know
	meant       [2]map[int64]bool // the offsets of those: who is there later may have been put there by it
}

// mean notes a commit that was not carried out.
func (g *modelled) mean(onTarget bool, offset int64) {
	site := 0
	if onTarget {
		site = 1
	}
	if g.meant[site] == nil {
		g.meant[site] = map[int64]bool{}
	}
	g.lost, g.meant[site][offset] = true, true
}

func (g *modelled) agree() {
	g.touched = [2]bool{}
	if here := [2]int64{g.left, g.right}; here != g.stood[0] {
		copy(g.stood[1:], g.stood[:])
		g.stood[0] = here
	}
}

// model holds a Syncer's commits against what it must never do. Nothing of the
// rules of judge is in it, only who moved what.
type model struct {
	t          *testing.T
	seed       uint64
	maps       *mapped
	east, west *side
	failback   bool
	random     *rand.Rand
	groups     map[string]*modelled
	told       sync.Mutex // guards the field below
	story      []string
	broken     string
	stop       func()
	checks     bool // the flow writes checkpoints
	byHand     bool // a commit is an operator's
}

const modelTopic = "orders"

func (m *model) say(format string, args ...any) {
	m.told.Lock()
	defer m.told.Unlock()
	m.story = append(m.story, fmt.Sprintf("%s "+format, append([]any{time.Now().Format("04:05.000")}, args...)...))
}

// fail notes the first thing that must not be; it is called by the Syncer too.
func (m *model) fail(format string, args ...any) {
	if m.broken == "" {
		m.broken = fmt.Sprintf(format, args...)
		m.say("WRONG: %s", m.broken)
	}
}

// tell ends the test if something was wrong.
func (m *model) tell() {
	m.t.Helper()
	if m.broken != "" {
		m.stop()
		for _, line := range m.story[max(0, len(m.story)-40):] {
			m.t.Log(line)
		}
		m.t.Fatalf("seed %d: %s", m.seed, m.broken)
	}
}

func (m *model) flow() *topology.Flow {
	flow, err := topology.NewFlow("east", "west", func(f *topology.Flow) { f.GroupSync.Failback, f.Checkpoints = m.failback, m.checks })
	if err != nil {
		m.t.Fatal(err)
	}
	return flow
}

// begin begins a life of the Syncer.
func (m *model) begin() {
	s := checkpoint.NewSyncer(checkpoint.Routes{Forward: checkpoint.Route{Flow: m.flow(), Maps: m.maps}}, m.east, m.west, quiet())
	m.stop = start(m.t, s.Run)
}

// watch looks at a commit of the Syncer before it is carried out.
func (m *model) watch(onTarget bool) func(string, kafka.TopicPartition, int64, int64) {
	return func(name string, at kafka.TopicPartition, before, after int64) {
		g := m.groups[name]
		m.say("commit %s to %s: %d -> %d (source %d, target %d, touched %v)", name, at.Topic, before, after, g.left, g.right, g.touched)
		switch {
		case m.byHand:
		case onTarget && at.Topic != "east."+modelTopic, !onTarget && (at.Topic != modelTopic || !m.failback):
			m.fail("%s: a commit to %v", name, at)
		case onTarget && before >= 0 && g.touched[1] && (!g.lost || after < before):
			m.fail("%s: somebody moved the target's group to %d, and it is set to %d", name, before, after)
		case !onTarget && before >= 0 && g.touched[0] && (!g.lost || after < before):
			m.fail("%s: somebody moved the source's group to %d, and it is set to %d", name, before, after)
		case onTarget && after < before && !g.lost && g.left >= max(g.stood[0][0], g.stood[1][0], g.stood[2][0]):
			m.fail("%s: the target's group goes back from %d to %d, and the source did not (%v)", name, before, after, g.stood)
		}
		if onTarget {
			g.right = after
		} else {
			g.left = after
		}
		g.agree()
		g.lost = g.lost && m.byHand // the Syncer does not know more for it
		g.theirs[map[bool]int{false: 0, true: 1}[onTarget]] = false
	}
}

// step is one event. The Syncer is at rest: nothing happens between a look and the
// commit that follows from it, as that can be told from neither.
func (m *model) step() {
	synctest.Wait()
	defer func() { // what the model has noted is the Syncer's to read
		for _, side := range []*side{m.east, m.west} {
			side.mu.Lock()
			side.mu.Unlock() //nolint:staticcheck // an order of events
		}
	}()
	pick := m.random.IntN
	g := m.groups[fmt.Sprint("group-", pick(len(m.groups)))]
	switch pick(21) {
	case 0, 1, 2, 3, 4: // read on
		g.left = max(0, g.left) + int64(pick(30))
		m.moved(g, 0)
	case 5: // reset
		g.left = int64(pick(100))
		m.moved(g, 0)
	case 6, 7:
		if m.random.IntN(2) == 0 && !m.failback {
			return
		}
		g.right = max(0, g.right) + int64(pick(30))
		m.moved(g, 1)
	case 8:
		g.right = int64(pick(100))
		m.moved(g, 1)
	case 9:
		some := pick(2) == 0
		m.west.members(g.name, some)
		m.say("members of %s on the target: %v", g.name, some)
	case 10:
		some := pick(2) == 0
		m.east.members(g.name, some)
		m.say("members of %s on the source: %v", g.name, some)
	case 11:
		m.maps.grow(1)
		for _, g := range m.groups {
			m.meet(g)
		}
	case 12:
		m.west.delete(g.name)
		g.right, g.touched[1], g.theirs[1] = -1, false, false
		m.say("%s is deleted on the target", g.name)
	case 13:
		m.stop()
		m.say("crash")
		if pick(2) == 0 {
			time.Sleep(time.Duration(pick(3000)) * time.Millisecond)
		}
		m.begin()
	case 14: // answers are lost, and perhaps the process with them
		side := m.west
		if m.failback && pick(2) == 0 {
			side = m.east
		}
		done := pick(2) == 0
		side.mu.Lock()
		side.fault = func(req kmsg.Request) (bool, error) {
			if c, ok := req.(*kmsg.OffsetCommitRequest); ok {
				if g := m.groups[c.Group]; !done || side.group(c.Group).members { // or refused, which it does not learn
					g.mean(side == m.west, c.Topics[0].Partitions[0].Offset)
				}
				return done, errors.New("connection lost")
			}
			return true, nil
		}
		side.mu.Unlock()
		m.say("commits are lost (carried out: %v)", done)
		time.Sleep(time.Duration(pick(4000)) * time.Millisecond)
		synctest.Wait()
		if pick(2) == 0 {
			m.stop()
			m.say("crash")
			side.fault = nil
			m.begin()
			return
		}
		side.fault = nil
	case 15:
		m.hand(g, pick(2) == 0)
	default:
		time.Sleep(time.Duration(pick(2500)) * time.Millisecond)
		synctest.Wait()
	}
}

// moved carries out that somebody moved a group on one side. It counts as moved
// until both stand at the same place.
func (m *model) moved(g *modelled, site int) {
	_, end, _ := m.maps.Runs("", "", 0).End()
	g.right = min(g.right, end)
	if site == 0 {
		m.east.commit(g.name, modelTopic, 0, g.left)
	} else {
		m.west.commit(g.name, "east."+modelTopic, 0, g.right)
	}
	g.touched[site], g.theirs[site] = !g.meant[site][[2]int64{g.left, g.right}[site]], true
	for _, stood := range g.stood {
		if stood[site] == [2]int64{g.left, g.right}[site] {
			g.touched[site] = false
		}
	}
	m.meet(g)
	m.say("%s moves on side %d: source %d, target %d", g.name, site, g.left, g.right)
}

// hand has an operator move a group to where it stands on the other side. A Syncer
// that runs may not see that before somebody moves it again.
func (m *model) hand(g *modelled, failback bool) {
	mover := checkpoint.NewGroupMover(checkpoint.Routes{Forward: checkpoint.Route{Flow: m.flow(), Maps: m.maps}}, m.east, m.west, quiet())
	all := func(string) bool { return true }
	if err := mover.Recall(m.t.Context(), all, all); err != nil {
		m.t.Fatal(err)
	}
	source, target, err := mover.Read(m.t.Context(), func(name string) bool { return name == g.name }, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	plans := mover.Adopt(source, target, []string{g.name})
	if failback {
		plans = mover.Failback(m.t.Context(), source, target, []string{g.name}, func(string, int32) int64 { return -1 })
	}
	m.byHand = true
	done := mover.Apply(m.t.Context(), plans)
	m.byHand = false
	m.say("by hand: %+v", done)
	if done[0].Refused == "" && done[0].Moves[0].Done {
		g.agree()
		g.theirs = [2]bool{true, true}
	}
}

func (m *model) meet(g *modelled) {
	there, _ := m.maps.Translate("", "", 0, g.left)
	back, _ := m.maps.Invert("", "", 0, g.right)
	if g.left >= 0 && g.right >= 0 && (there.Offset == g.right || back.Offset == g.left && (m.failback || back.Exact)) {
		g.agree()
	}
}

// Random commits on both sides, members that come and go, resets, deletions,
// crashes between any two requests, lost answers: what somebody put there is not
// touched, nothing goes back of itself, and in the end, when all is quiet, who
// moved on one side only stands at the same place on the other.
func TestSyncerModel(t *testing.T) {
	histories := 150
	if n, err := strconv.Atoi(os.Getenv("KMIRROR_SEEDS")); err == nil {
		histories = n
	}
	from, _ := strconv.ParseUint(os.Getenv("KMIRROR_SEED_FROM"), 10, 64) // not set: 0
	for i := range histories {
		seed := from + uint64(i)
		synctest.Test(t, func(t *testing.T) {
			m := &model{
				t: t, seed: seed, maps: newMapped(12), east: newSide(), west: newSide(),
				failback: seed%2 == 1, checks: seed%3 != 0, random: rand.New(rand.NewPCG(seed, 1)), groups: map[string]*modelled{},
			}
			for i := range 3 {
				name := fmt.Sprint("group-", i)
				m.groups[name] = &modelled{name: name, left: -1, right: -1}
			}
			m.west.onCommit, m.east.onCommit = m.watch(true), m.watch(false)
			m.begin()
			for range 120 {
				m.step()
				synctest.Wait()
				m.tell()
			}
			for _, g := range m.groups {
				m.east.members(g.name, false)
				m.west.members(g.name, false)
			}
			m.maps.grow(200)
			time.Sleep(time.Minute)
			for _, g := range m.groups {
				left, right := m.east.at(g.name, modelTopic, 0), m.west.at(g.name, "east."+modelTopic, 0)
				there, _ := m.maps.Translate("", "", 0, left)
				back, _ := m.maps.Invert("", "", 0, right)
				switch {
				case left < 0 && !m.failback, left < 0 && right < 0:
				case there.Offset == right || back.Offset == left:
				case g.theirs[1] && (!m.failback || g.theirs[0] || back.Offset < left):
				default:
					m.fail("%s ends at %d (there %d) and %d (here %d), touched %v", g.name, left, there.Offset, right, back.Offset, g.touched)
				}
			}
			m.tell()
			m.stop()
		})
		if t.Failed() {
			return
		}
	}
}

var _ checkpoint.SyncCluster = (*side)(nil)
