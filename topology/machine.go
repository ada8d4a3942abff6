package topology

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
)

// machine reads names, character by character, and says which of them a row of
// flows would take one after another, each under the name that the one before
// gave it. Turned round it reads names of one flow's target.
//
// Where a group of a rename ends is not known before the name is, so what the
// machine has come to is a set of threads, one for each way to read the name.
type machine struct {
	stages []*selector
	back   bool // one stage, which reads names of its target
}

// thread is a place on each stage.
type thread []place

type place struct {
	alternative, step int32
	off               int32 // bytes of the step's text that were read; all of them: the group has begun
	group             int32 // state of the group
	vector            int32 // of the selector
	begun             bool  // the selector has read something
}

func (m *machine) text(t thread, k int) (read, write string) {
	s := m.step(t, k)
	if m.back {
		return s.target, s.source
	}
	return s.source, s.target
}

func (m *machine) step(t thread, k int) *step {
	return &m.stages[k].alternatives[t[k].alternative].steps[t[k].step]
}

// start is before the first character; false if there are too many choices.
func (m *machine) start() ([]thread, bool) {
	threads := []thread{make(thread, len(m.stages))}
	for k, stage := range m.stages { // every choice of alternatives
		var chosen []thread
		for _, t := range threads {
			for i := range stage.alternatives {
				t := slices.Clone(t)
				t[k].alternative = int32(i)
				chosen = append(chosen, t)
			}
		}
		threads = chosen
		if len(threads) > maxProduct {
			return nil, false
		}
	}
	for k := range slices.Backward(m.stages) { // what a stage writes before it reads anything, the next one reads
		var begun []thread
		for _, t := range threads {
			begun = append(begun, m.reached(t, k)...)
		}
		threads = begun
	}
	return tidy(threads), true
}

// after is what threads come to over one more character.
func (m *machine) after(threads []thread, c byte) []thread { return m.feed(threads, 0, c) }

func (m *machine) feed(threads []thread, k int, c byte) []thread {
	var found []thread
	for _, t := range threads {
		if !m.back {
			if t = m.asked(t, k, c); t == nil {
				continue
			}
		}
		found = append(found, m.consume(t, k, c)...)
	}
	return tidy(found)
}

// asked lets the selector read a character, nil if it takes no name that begins so.
func (m *machine) asked(t thread, k int, c byte) thread {
	t = slices.Clone(t)
	t[k].vector, t[k].begun = m.stages[k].read(t[k].vector, c), true
	if m.stages[k].dead(t[k].alternative, t[k].vector) {
		return nil
	}
	return t
}

// consume reads a character at a stage, in every way there is.
func (m *machine) consume(t thread, k int, c byte) []thread {
	at := m.step(t, k)
	read, _ := m.text(t, k)
	if int(t[k].off) < len(read) {
		if read[t[k].off] != c {
			return nil
		}
		t = slices.Clone(t)
		t[k].off++
		return m.reached(t, k)
	}
	if at.group == nil {
		return nil
	}
	var found []thread
	if state := at.group.step(t[k].group, c); state != dead {
		inside := slices.Clone(t)
		inside[k].group = state
		found = m.write([]thread{inside}, k, string(rune(c)))
	}
	if at.group.accepts(t[k].group) {
		for _, left := range m.leave(t, k) {
			found = append(found, m.consume(left, k, c)...)
		}
	}
	return found
}

// leave goes on behind a group.
func (m *machine) leave(t thread, k int) []thread {
	t = slices.Clone(t)
	t[k].step, t[k].off, t[k].group = t[k].step+1, 0, 0
	return m.reached(t, k)
}

// reached writes a step's text once all of its counterpart has been read.
func (m *machine) reached(t thread, k int) []thread {
	read, write := m.text(t, k)
	if int(t[k].off) < len(read) {
		return []thread{t}
	}
	if group := m.step(t, k).group; group != nil {
		t = slices.Clone(t)
		t[k].group = group.start()
	}
	return m.write([]thread{t}, k, write)
}

// write hands text to whom a stage writes for.
func (m *machine) write(threads []thread, k int, text string) []thread {
	for i := range len(text) {
		switch {
		case m.back:
			var kept []thread
			for _, t := range threads {
				if t = m.asked(t, k, text[i]); t != nil {
					kept = append(kept, t)
				}
			}
			threads = kept
		case k+1 < len(m.stages):
			threads = m.feed(threads, k+1, text[i])
		}
	}
	return threads
}

// accepts reports whether the name may end here.
func (m *machine) accepts(threads []thread) bool {
	for k := range m.stages {
		var ended []thread
		for _, t := range threads {
			ended = append(ended, m.ends(t, k)...)
		}
		threads = ended
	}
	return slices.ContainsFunc(threads, func(t thread) bool {
		for k := range t {
			if !m.stages[k].accepts(t[k].alternative, t[k].vector, t[k].begun) {
				return false
			}
		}
		return true
	})
}

// ends goes to the end of a stage's last step without reading.
func (m *machine) ends(t thread, k int) []thread {
	read, _ := m.text(t, k)
	group := m.step(t, k).group
	switch {
	case int(t[k].off) < len(read):
		return nil
	case group == nil:
		return []thread{t}
	case !group.accepts(t[k].group):
		return nil
	}
	var found []thread
	for _, left := range m.leave(t, k) {
		found = append(found, m.ends(left, k)...)
	}
	return found
}

// exhausted reports that the machine has worked too long.
func (m *machine) exhausted() bool { return slices.ContainsFunc(m.stages, (*selector).exhausted) }

func (t thread) key(to []byte) []byte {
	for _, p := range t {
		begun := byte(0)
		if p.begun {
			begun = 1
		}
		to = append(to, begun)
		for _, n := range [...]int32{p.alternative, p.step, p.off, p.group, p.vector} {
			to = binary.AppendUvarint(to, uint64(n))
		}
	}
	return to
}

// tidy sorts threads and drops those that stand twice.
func tidy(threads []thread) []thread {
	if len(threads) < 2 {
		return threads
	}
	compare := func(a, b thread) int { return bytes.Compare(a.key(nil), b.key(nil)) }
	slices.SortFunc(threads, compare)
	return slices.CompactFunc(threads, func(a, b thread) bool { return compare(a, b) == 0 })
}

// common returns the shortest legal name that all machines take. The second
// result is false if the search had to be given up.
func common(machines ...*machine) (name string, decided bool) {
	type node struct {
		at     [][]thread
		parent int
		by     byte
	}
	first := node{parent: -1}
	for _, m := range machines {
		threads, ok := m.start()
		if len(threads) == 0 {
			return "", ok
		}
		first.at = append(first.at, threads)
	}
	alphabet := representatives(machines)
	nodes := []node{first}
	seen := map[string]bool{}
	depthEnds, depth := 1, 0
	for i := 0; i < len(nodes); i++ {
		if i == depthEnds {
			depthEnds, depth = len(nodes), depth+1
		}
		if depth > 0 && allAccept(machines, nodes[i].at) {
			var reversed []byte
			for j := i; nodes[j].parent >= 0; j = nodes[j].parent {
				reversed = append(reversed, nodes[j].by)
			}
			slices.Reverse(reversed)
			return string(reversed), true
		}
		if depth == MaxTopicName {
			continue
		}
		for _, c := range []byte(alphabet) {
			next := make([][]thread, 0, len(machines))
			var key []byte
			for j, m := range machines {
				threads := m.after(nodes[i].at[j], c)
				if len(threads) == 0 {
					break
				}
				next = append(next, threads)
				key = binary.AppendUvarint(key, uint64(len(threads)))
				for _, t := range threads {
					key = t.key(key)
				}
			}
			if len(next) < len(machines) || seen[string(key)] {
				continue
			}
			if len(nodes) == maxProduct || slices.ContainsFunc(machines, (*machine).exhausted) {
				return "", false
			}
			seen[string(key)] = true
			nodes = append(nodes, node{at: next, parent: i, by: c})
		}
	}
	return "", true
}

func allAccept(machines []*machine, at [][]thread) bool {
	for i, m := range machines {
		if !m.accepts(at[i]) {
			return false
		}
	}
	return true
}

// representatives is one character of each class that nothing in the machines tells apart.
func representatives(machines []*machine) string {
	texts := map[byte]bool{}
	var automata []*automaton
	for _, m := range machines {
		for _, stage := range m.stages {
			automata = append(automata, stage.automata()...)
			for _, a := range stage.alternatives {
				for _, s := range a.steps {
					for _, c := range []byte(s.source + s.target) {
						texts[c] = true
					}
					if s.group != nil {
						automata = append(automata, s.group)
					}
				}
			}
		}
	}
	var kept strings.Builder
	classes := map[string]bool{}
	signature := make([]byte, 0, len(automata)+1)
	for _, c := range []byte(topicChars) {
		signature = append(signature[:0], 0)
		if texts[c] {
			signature[0] = c
		}
		for _, a := range automata {
			signature = append(signature, a.class[c])
		}
		if !classes[string(signature)] {
			classes[string(signature)] = true
			kept.WriteByte(c)
		}
	}
	return kept.String()
}
