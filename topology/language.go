package topology

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
)

// This file intersects regular languages: it finds the shortest topic name that
// several flows would all take, or proves that there is none. Each pattern is a
// nondeterministic automaton (regexp/syntax's program) made deterministic as far
// as the search walks; the search is breadth-first over the product.

// maxProduct bounds the states of one search. Patterns that people write need
// some dozens; past the bound the answer is "cannot be proved".
const maxProduct = 50_000

// topicChars are the characters of topic names, those first that make a name readable.
const topicChars = "abcdefghijklmnopqrstuvwxyz0123456789-_.ABCDEFGHIJKLMNOPQRSTUVWXYZ"

// automaton is one pattern, made deterministic lazily.
type automaton struct {
	prog   *syntax.Prog
	number map[string]int32 // by key
	states []automatonState
	work   int       // instructions looked at so far
	whole  []bool    // by instruction: from here on everything matches, as behind a last .*
	class  [256]byte // of each topic character: those of one class no instruction tells apart
}

// automatonState is what the program is about to do, and what stood before.
type automatonState struct {
	pcs  []uint32 // sorted; empty: nothing can match any more
	last rune     // the character before, -1 at the start
	next map[byte]int32
	ends verdict // whether the pattern may end here
	rest bool    // whatever comes now, the pattern matches
}

// verdict is a yes or no that may not have been asked for yet.
type verdict int8

const (
	unasked verdict = iota
	yes
	no
)

// maxWork bounds the instructions that one automaton looks at, some seconds' worth;
// past it, too, the answer is "cannot be proved".
const maxWork = 200_000_000

const dead = int32(0) // the number of the state without instructions

func newAutomaton(pattern string) (*automaton, error) {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	a := &automaton{prog: prog, number: map[string]int32{}}
	a.classify()
	a.findWhole()
	a.intern(nil, 0)
	return a, nil
}

// classify numbers the classes of characters, in their order.
func (a *automaton) classify() {
	numbers := map[string]byte{}
	signature := make([]byte, 0, len(a.prog.Inst)+1)
	for _, c := range []byte(topicChars) {
		signature = append(signature[:0], byte(kind(rune(c))))
		for i := range a.prog.Inst {
			switch inst := &a.prog.Inst[i]; inst.Op {
			case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
				if inst.MatchRune(rune(c)) {
					signature = append(signature, 1)
				} else {
					signature = append(signature, 0)
				}
			case syntax.InstAlt, syntax.InstAltMatch, syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth, syntax.InstFail, syntax.InstMatch:
			}
		}
		number, known := numbers[string(signature)]
		if !known {
			number = byte(len(numbers))
			numbers[string(signature)] = number
		}
		a.class[c] = number
	}
}

// findWhole marks the instructions from which everything matches: the largest set
// in which each leads to the end, and over any character back into the set.
func (a *automaton) findWhole() {
	a.whole = make([]bool, len(a.prog.Inst))
	for i := range a.whole {
		a.whole[i] = true
	}
	for changed := true; changed; {
		changed = false
		for pc := range a.whole {
			if !a.whole[pc] {
				continue
			}
			ends, goesOn := false, false
			a.walk([]uint32{uint32(pc)}, 0, func(inst *syntax.Inst) {
				ends = ends || inst.Op == syntax.InstMatch
				goesOn = goesOn || (inst.Op == syntax.InstRuneAny || inst.Op == syntax.InstRuneAnyNotNL) && a.whole[inst.Out]
			})
			if !ends || !goesOn {
				a.whole[pc], changed = false, true
			}
		}
	}
}

func (a *automaton) start() int32 { return a.intern([]uint32{uint32(a.prog.Start)}, -1) }

func (a *automaton) intern(pcs []uint32, last rune) int32 {
	rest := false
	for _, pc := range pcs {
		if a.whole[pc] {
			pcs, last, rest = []uint32{pc}, 0, true // the others add nothing
			break
		}
	}
	if len(pcs) == 0 {
		last = 0
	}
	key := binary.AppendVarint(make([]byte, 0, 1+2*len(pcs)), int64(kind(last)))
	for _, pc := range pcs {
		key = binary.AppendUvarint(key, uint64(pc))
	}
	if n, ok := a.number[string(key)]; ok {
		return n
	}
	n := int32(len(a.states))
	a.number[string(key)] = n
	a.states = append(a.states, automatonState{pcs: pcs, last: last, next: map[byte]int32{}, rest: rest})
	return n
}

// kind is all that \b and ^ want to know of the character before.
func kind(last rune) int {
	switch {
	case last < 0:
		return 0
	case syntax.IsWordChar(last):
		return 1
	}
	return 2
}

func (a *automaton) step(state int32, c byte) int32 {
	if state == dead {
		return dead
	}
	from := &a.states[state]
	if next, ok := from.next[c]; ok {
		return next
	}
	var pcs []uint32
	a.walk(from.pcs, syntax.EmptyOpContext(from.last, rune(c)), func(inst *syntax.Inst) {
		if inst.Op != syntax.InstMatch && inst.MatchRune(rune(c)) {
			pcs = append(pcs, inst.Out)
		}
	})
	slices.Sort(pcs)
	next := a.intern(slices.Compact(pcs), rune(c))
	a.states[state].next[c] = next // by index: intern may have moved the states
	return next
}

func (a *automaton) accepts(state int32) bool {
	at := &a.states[state]
	if at.ends == unasked {
		at.ends = no
		a.walk(at.pcs, syntax.EmptyOpContext(at.last, -1), func(inst *syntax.Inst) {
			if inst.Op == syntax.InstMatch {
				at.ends = yes
			}
		})
	}
	return at.ends == yes
}

// walk visits the rune and match instructions that stand behind pcs.
func (a *automaton) walk(pcs []uint32, here syntax.EmptyOp, visit func(*syntax.Inst)) {
	seen := make([]bool, len(a.prog.Inst))
	a.work += len(seen)
	stack := slices.Clone(pcs)
	for len(stack) > 0 {
		pc := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[pc] {
			continue
		}
		seen[pc] = true
		switch inst := &a.prog.Inst[pc]; inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, inst.Out, inst.Arg)
		case syntax.InstCapture, syntax.InstNop:
			stack = append(stack, inst.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(inst.Arg)&^here == 0 {
				stack = append(stack, inst.Out)
			}
		case syntax.InstFail:
		case syntax.InstMatch, syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			visit(inst)
		}
	}
}
