package main

import (
	"fmt"
	"io"
	"time"
)

// progress is one line on the terminal that is written over as work goes on;
// silent for work that is over within a second, and where nobody looks.
type progress struct {
	w       io.Writer // nil: silent
	started time.Time
	last    time.Time
	shown   bool
}

func (a *app) progress() *progress {
	p := &progress{started: time.Now()}
	if a.errTerminal {
		p.w = a.err
	}
	return p
}

// step shows text, at most four times a second.
func (p *progress) step(now time.Time, text func(elapsed time.Duration) string) {
	if p.w == nil || now.Sub(p.started) < time.Second || now.Sub(p.last) < 250*time.Millisecond {
		return
	}
	p.last, p.shown = now, true
	fmt.Fprintf(p.w, "\r\x1b[K%s", clean(text(now.Sub(p.started))))
}

// done wipes the line.
func (p *progress) done() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
