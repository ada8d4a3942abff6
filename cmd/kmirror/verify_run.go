package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kmirror/internal/console"
	"kmirror/internal/verify"
)

// verifying is a verification that runs.
type verifying struct {
	app     *app
	v       *verify.Verification
	store   verify.Store
	options verify.Options
	meter   verify.Meter
}

const (
	verifyLook = 200 * time.Millisecond // how often progress is looked at
	verifyLine = 10 * time.Second       // how often it is told where nobody looks
	verifySave = 2 * time.Second        // how often it is kept, at most
)

// run compares, keeps how far it has come, and reports; or returns the standing
// with which the next turn begins.
func (w *verifying) run(ctx context.Context) (next *verify.Standing, err error) {
	a := w.app
	if err := w.store.Save(w.v.Standing()); err != nil {
		return nil, err
	}
	if !a.wantsJSON() {
		w.announce()
	}
	done := make(chan error, 1)
	go func() { done <- verify.Run(ctx, w.options, w.v.Jobs(), &w.meter) }()
	running := w.watch(done)
	stopped := running != nil && ctx.Err() != nil
	if running != nil && !stopped {
		return nil, running
	}
	if next = w.v.Next(); next != nil && !stopped {
		return next, w.store.Save(next)
	}
	return nil, w.end(ctx, stopped)
}

// end reports, and keeps what is not done.
func (w *verifying) end(ctx context.Context, stopped bool) error {
	a := w.app
	report := w.v.Report()
	finished := !stopped && report.Verdict != verify.Unfinished && !someFailed(report)
	var err error
	if finished {
		err = w.store.Clear()
	} else {
		err = w.store.Save(w.v.Standing())
	}
	if err != nil {
		return err
	}
	if err := w.show(report); err != nil {
		return err
	}
	again := a.command("verify", quoteWord(w.v.Flow.Name), "--resume")
	switch {
	case stopped:
		fmt.Fprintf(a.err, "kmirror: stopped; to go on: %s\n", again)
		return ctx.Err()
	case report.Verdict == verify.Different:
		return &shownError{exitDifferent}
	case !finished:
		return fmt.Errorf("not all could be read; to go on: %s", again)
	}
	return nil
}

func someFailed(r *verify.Report) bool {
	for _, t := range r.Topics {
		if t.Unread > 0 {
			return true
		}
	}
	return false
}

// announce says what is about to be compared.
func (w *verifying) announce() {
	all, before := w.v.Offsets()
	text := fmt.Sprintf("comparing %s of %s", plural(len(w.v.Jobs()), "partition"), w.v.Flow.Name)
	if s := w.v.Selection.Sample; s.Share < 1 {
		text += fmt.Sprintf(", a sample of %g %%, seed %d", s.Share*100, s.Seed)
	}
	text += fmt.Sprintf(": %s offsets", plainFigure(console.FormatCount(all)))
	if before > 0 {
		text += fmt.Sprintf(", %s of them done already", plainFigure(console.FormatCount(before)))
	}
	if n := len(w.v.Course.Left) + len(w.v.Course.Again); n > 0 {
		text += fmt.Sprintf("; %s more after that", plural(n, "topic"))
	}
	fmt.Fprintln(w.app.err, text)
}

// watch shows and keeps progress until the work is over.
func (w *verifying) watch(done <-chan error) error {
	all, before := w.v.Offsets()
	line := w.app.progress()
	defer line.done()
	started := time.Now()
	told, saved, pause := started, started, verifySave
	ticker := time.NewTicker(verifyLook)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			return err
		case now := <-ticker.C:
			text := func(elapsed time.Duration) string {
				return w.progress(before+w.meter.Offsets.Load(), all, w.meter.Offsets.Load(), elapsed)
			}
			line.step(now, text)
			if !w.app.errTerminal && !w.app.wantsJSON() && now.Sub(told) >= verifyLine {
				told = now
				fmt.Fprintln(w.app.err, text(now.Sub(started)))
			}
			if now.Sub(saved) < pause {
				continue
			}
			if err := w.store.Save(w.v.Standing()); err != nil {
				fmt.Fprintf(w.app.err, "kmirror: %s\n", clean(err.Error())) // the work goes on; it is tried again
			}
			saved = time.Now()
			pause = max(verifySave, 20*saved.Sub(now)) // a large one takes its time
		}
	}
}

// progress is one line: a bar, how much is done, how fast, and how long it will take.
func (w *verifying) progress(at, all, here int64, elapsed time.Duration) string {
	share := 1.0
	if all > 0 {
		share = min(1, float64(at)/float64(all))
	}
	const width = 24
	full := int(share * width)
	text := fmt.Sprintf("[%s%s] %3.0f %%", strings.Repeat("=", full), strings.Repeat(" ", width-full), share*100)
	seconds := elapsed.Seconds()
	if seconds > 0 {
		text += "  " + plainFigure(console.FormatByteRate(float64(w.meter.Bytes.Load())/seconds))
	}
	if here > 0 && at < all {
		text += fmt.Sprintf("  %s left", time.Duration(float64(all-at)/float64(here)*float64(elapsed)).Round(time.Second))
	}
	if n := w.meter.Differences.Load(); n > 0 {
		text += fmt.Sprintf("  %s", plural(int(n), "difference"))
	}
	return text
}

// show writes the report.
func (w *verifying) show(r *verify.Report) error {
	a := w.app
	if a.wantsJSON() {
		return a.writeJSON(r)
	}
	t := newTable("TOPIC IN "+r.From, "TOPIC IN "+r.To, ">PARTITIONS", ">RECORDS", ">BYTES", ">GONE", ">BY OTHERS", "DIGEST", "VERDICT")
	for _, topic := range r.Topics {
		digest := topic.Digest.Source
		if topic.Digest.Target != digest {
			digest += " / " + topic.Digest.Target
		}
		if topic.Offsets == 0 {
			digest = "-"
		}
		t.row(topic.Topic, topic.TargetTopic, topic.Count, plainFigure(console.FormatCount(topic.Tally.Records)), plainFigure(console.FormatBytes(float64(topic.Tally.Bytes))),
			plainFigure(console.FormatCount(topic.Tally.Gone)), plainFigure(console.FormatCount(topic.Tally.Strangers)), digest, verdictOf(topic))
	}
	if err := t.write(a.out, ""); err != nil {
		return err
	}
	for _, line := range verifyNotes(r) {
		if _, err := fmt.Fprintln(a.out, cleanLines(line)); err != nil {
			return err
		}
	}
	return nil
}

func verdictOf(t verify.TopicReport) string {
	switch t.Verdict {
	case verify.Different:
		return plural(int(t.Tally.Differences), "difference")
	case verify.Nothing:
		return "nothing to compare"
	case verify.Unfinished:
		if t.Offsets > 0 {
			return fmt.Sprintf("equal so far, %.0f %%", 100*float64(t.Done)/float64(t.Offsets))
		}
		return "not read"
	case verify.Equal:
	}
	return "equal"
}

// verifyNotes are what the table does not say: what was not compared, and the
// first difference.
func verifyNotes(r *verify.Report) []string {
	var notes []string
	note := func(n int64, format string) {
		if n > 0 {
			notes = append(notes, fmt.Sprintf(format, plainFigure(console.FormatCount(n))))
		}
	}
	var before, beyond int64
	for _, t := range r.Topics {
		before, beyond = before+t.Before, beyond+t.Beyond
		for _, p := range t.Partitions {
			if p.Error != "" {
				notes = append(notes, fmt.Sprintf("%s/%d was not read to its end: %s", t.Topic, p.Partition, p.Error))
			}
		}
	}
	note(beyond, "%s source offsets were not mirrored yet when this began")
	note(before, "%s source offsets lie before what the offset map knows")
	note(r.Total.LeftOut, "%s records are left out by the flow")
	note(r.Total.SetAside, "%s records are set aside in a dead-letter topic")
	note(r.Total.Approximate, "%s records were found where the map knows their place only roughly")
	if r.Left > 0 {
		notes = append(notes, plural(r.Left, "topic")+" are still to come")
	}
	if len(r.Vanished) > 0 {
		notes = append(notes, "no longer there when their turn came: "+strings.Join(r.Vanished, ", "))
	}
	if len(r.Unmapped) > 0 {
		notes = append(notes, "nothing is mirrored yet of "+strings.Join(r.Unmapped, ", "))
	}
	if r.First != nil {
		notes = append(notes, "first difference: "+r.First.String())
		for _, d := range r.Differences[1:min(len(r.Differences), 10)] {
			notes = append(notes, "        another: "+d.String())
		}
	}
	return notes
}
