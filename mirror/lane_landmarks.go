package mirror

import "kmirror/checkpoint"

// landmarks returns the ledger's steps without which the last batch that was
// acknowledged, and those after it, could not be told from the target's log. A
// ledger that lost its end is written again from them.
func (l *lane) landmarks() []checkpoint.Step {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]checkpoint.Step(nil), l.steps...)
}

// mark takes note of steps that are being written. Called with mu held.
func (l *lane) mark(steps []checkpoint.Step) { l.steps = append(l.steps, steps...) }

// passBy forgets the steps that only concern what came before a batch that was
// acknowledged. Called with mu held.
func (l *lane) passBy(sequence int32) {
	n := 0
	for n+1 < len(l.steps) && l.steps[n+1].Sequence <= sequence {
		n++
	}
	l.steps = l.steps[n:]
}
