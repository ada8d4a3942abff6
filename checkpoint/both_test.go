package checkpoint

import (
	"testing"

	"pgregory.net/rapid"
)

// twoSites is a topic that two sites write and mirror to each other: site 0 and
// site 1, each with the log it holds and how far the other has mirrored it.
type twoSites struct {
	logs [2][]int // records by their number; -1 is a marker
	made map[int]int
	read [2]int   // how far each log is mirrored to the other side
	maps [2]*Runs // what each site produced: here to there
	seen [2]*Runs // the same, as old as it was when last looked at
}

// look brings what is seen of one site's map up to date.
func (s *twoSites) look(site int) { s.seen[site] = s.maps[site].Clone() }

func (s *twoSites) produce(site int) {
	n := len(s.made)
	s.made[n] = site
	s.logs[site] = append(s.logs[site], n)
}

// mirror carries the next record of a site's log to the other, if it was
// produced there.
func (s *twoSites) mirror(t *rapid.T, site int) {
	if s.read[site] == len(s.logs[site]) {
		return
	}
	offset := s.read[site]
	s.read[site]++
	record := s.logs[site][offset]
	if record >= 0 && s.made[record] == site {
		if err := s.maps[site].Add(Run{Source: int64(offset), Target: int64(len(s.logs[1-site])), Count: 1}); err != nil {
			t.Fatal(err)
		}
		s.logs[1-site] = append(s.logs[1-site], record)
		return
	}
	s.maps[site].Pass(int64(s.read[site]))
}

func (s *twoSites) lookups() (ours, theirs lookup) {
	ask := func(r *Runs, back bool) func(int64) (Translation, bool) {
		return func(offset int64) (Translation, bool) {
			if back {
				return r.Backward(offset), true
			}
			return r.Forward(offset), true
		}
	}
	through := func(site int) func() (int64, bool) {
		return func() (int64, bool) { return s.seen[site].Through(), true }
	}
	behind := func(offset int64) (int64, bool) { return s.seen[1].Behind(offset), true }
	return lookup{to: ask(s.seen[0], false), from: ask(s.seen[0], true), through: through(0)},
		lookup{to: ask(s.seen[1], true), from: ask(s.seen[1], false), through: through(1), behind: behind}
}

// For every offset of a random history: nothing that was not read lies before
// the answer, however old either map is. If neither is, an exact answer has
// nothing that was read behind it, and where the place is unique, the answer is
// exact.
func TestJoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &twoSites{made: map[int]int{}, maps: [2]*Runs{{}, {}}}
		s.maps[0].Begin(0, 0)
		s.maps[1].Begin(0, 0)
		s.look(0)
		s.look(1)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			site := rapid.IntRange(0, 1).Draw(t, "site")
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				s.produce(site)
			case 2:
				s.logs[site] = append(s.logs[site], -1)
			case 3:
				s.look(site)
			default:
				s.mirror(t, site)
			}
		}
		fresh := rapid.Bool().Draw(t, "fresh")
		if fresh {
			s.look(0)
			s.look(1)
		}
		ours, theirs := s.lookups()
		later := &twoSites{logs: s.logs, maps: s.maps}
		later.look(0)
		later.look(1)
		oursLater, theirsLater := later.lookups()
		for offset := range len(s.logs[0]) + 2 {
			read := map[int]bool{}
			for _, record := range s.logs[0][:min(offset, len(s.logs[0]))] {
				read[record] = true
			}
			got, ok := joint(ours, theirs, int64(offset))
			if !ok {
				t.Fatalf("offset %d: no answer", offset)
			}
			if then, _ := joint(oursLater, theirsLater, int64(offset)); then.Offset > got.Offset && !got.Open {
				t.Fatalf("here %v, there %v: at %d, %+v becomes %+v, and was not open", s.logs[0], s.logs[1], offset, got, then)
			}
			again := 0
			for at, record := range s.logs[1] {
				switch {
				case record < 0:
				case !read[record] && int64(at) < got.Offset:
					t.Fatalf("here %v, there %v: at %d, %+v skips %d", s.logs[0], s.logs[1], offset, got, record)
				case read[record] && int64(at) >= got.Offset:
					again++
				}
			}
			if !fresh {
				continue
			}
			if got.Exact && again > 0 {
				t.Fatalf("here %v, there %v: at %d, %+v is not exact", s.logs[0], s.logs[1], offset, got)
			}
			if everything := s.read[0] == len(s.logs[0]) && s.read[1] == len(s.logs[1]); everything && offset == len(s.logs[0]) && (again > 0 || !got.Exact) {
				t.Fatalf("here %v, there %v: who has read everything gets %+v", s.logs[0], s.logs[1], got)
			}
			lost := int64(0)
			if from := s.read[0]; offset > from {
				lost = int64(offset - from)
			}
			if got.Shortfall != lost && (lost == 0 || s.maps[0].Len() > 0) {
				t.Fatalf("here %v mirrored to %d: at %d shortfall %d, want %d", s.logs[0], s.read[0], offset, got.Shortfall, lost)
			}
		}
	})
}
