package mirror

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// keptJournal opens the journal of a directory, and returns how to close it.
func keptJournal(t *testing.T, dir string) (*journal, *bytes.Buffer, func()) {
	t.Helper()
	var told bytes.Buffer
	j := newJournal(dir, "edge-1", nil, slog.New(slog.NewTextHandler(&told, nil)))
	if err := j.load(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); j.Run(ctx) }()
	return j, &told, func() { cancel(); <-done }
}

func incidentAt(partition int32, kind, detail string) Incident {
	return about(partitionID{"east->west", "orders", partition}, kind, detail, "none")
}

// TestJournalReadBack: what was recorded is there after a restart, with its
// count, and IDs go on.
func TestJournalReadBack(t *testing.T) {
	dir := t.TempDir()
	j, _, closeIt := keptJournal(t, dir)
	flow := j.of("east->west")
	flow.Record(incidentAt(0, KindDeadLetter, "first"))
	flow.Record(incidentAt(1, KindForeignWrite, "second"))
	flow.Record(incidentAt(1, KindForeignWrite, "second"))
	flow.Record(incidentAt(1, KindForeignWrite, "second"))
	before := j.since(0)
	closeIt()

	j, told, closeIt := keptJournal(t, dir)
	defer closeIt()
	if diff := cmp.Diff(before, j.since(0)); diff != "" {
		t.Error(diff)
	}
	if told.Len() > 0 {
		t.Error(told.String())
	}
	if got := j.since(1); len(got) != 1 || got[0].Times != 3 || got[0].Instance != "edge-1" || got[0].Flow != "east->west" {
		t.Errorf("%+v", got)
	}
	j.Record(incidentAt(1, KindForeignWrite, "second")) // the hour is not over
	j.Record(incidentAt(2, KindDoubled, "third"))
	if got := j.since(1); len(got) != 2 || got[0].Times != 4 || got[1].ID != 3 {
		t.Errorf("%+v", got)
	}
}

// TestJournalCutLine: a crash in the middle of a line costs that line, tells so,
// and spoils no later one.
func TestJournalCutLine(t *testing.T) {
	dir := t.TempDir()
	j, _, closeIt := keptJournal(t, dir)
	j.Record(incidentAt(0, KindDeadLetter, "whole"))
	j.Record(incidentAt(1, KindDeadLetter, "cut"))
	closeIt()
	path := filepath.Join(dir, "incidents.jsonl")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text[:len(text)-20], 0o600); err != nil {
		t.Fatal(err)
	}

	j, told, closeIt := keptJournal(t, dir)
	if !strings.Contains(told.String(), "left out") {
		t.Errorf("nothing is told: %q", told)
	}
	j.Record(incidentAt(2, KindDeadLetter, "later"))
	closeIt()
	j, _, closeIt = keptJournal(t, dir)
	defer closeIt()
	var details []string
	for _, i := range j.since(0) {
		details = append(details, i.Detail)
	}
	if diff := cmp.Diff([]string{"whole", "later"}, details); diff != "" {
		t.Error(diff)
	}
}

// TestJournalBounds: neither files nor memory grow without end, and the newest stay.
func TestJournalBounds(t *testing.T) {
	dir := t.TempDir()
	j, _, closeIt := keptJournal(t, dir)
	closeIt()
	long := strings.Repeat("x", 2*detailBytes)
	for i := range 4 * journalKept {
		j.Record(incidentAt(int32(i), KindConfigDrift, long))
		if i%100 == 99 {
			if err := j.save(true); err != nil {
				t.Fatal(err)
			}
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 2*journalBytes+(1<<20) || len(files) > 2 {
		t.Errorf("%d files of %d bytes", len(files), size)
	}
	j, _, closeIt = keptJournal(t, dir)
	defer closeIt()
	if got := j.since(0); len(got) > journalKept || got[len(got)-1].ID != 4*journalKept {
		t.Errorf("%d kept, newest %d", len(got), got[len(got)-1].ID)
	}
}

// TestJournalRepeats: the same within an hour is one, after it another.
func TestJournalRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		total := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "n"}, []string{"flow", "kind"})
		j := newJournal("", "edge-1", total, slog.New(slog.DiscardHandler))
		for range 5 {
			j.Record(incidentAt(0, KindOutOfDisk, "full"))
			time.Sleep(59 * time.Minute)
		}
		if got := j.since(0); len(got) != 1 || got[0].Times != 5 || got[0].Last.Sub(got[0].Time) != 4*59*time.Minute {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Hour)
		j.Record(incidentAt(0, KindOutOfDisk, "full"))
		if got := j.since(0); len(got) != 2 {
			t.Errorf("%+v", got)
		}
		registry := prometheus.NewRegistry()
		registry.MustRegister(total)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		if n := families[0].GetMetric()[0].GetCounter().GetValue(); n != 6 {
			t.Errorf("%v counted", n)
		}
	})
}

// TestJournalBadDisk: what cannot be written is told, kept in memory, and
// written as soon as it can be.
func TestJournalBadDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	j := newJournal(dir, "edge-1", nil, slog.New(slog.DiscardHandler))
	j.Record(incidentAt(0, KindDoubled, "seen"))
	if err := j.save(true); err == nil {
		t.Fatal("a file took the place of the directory, and nothing is said")
	}
	if len(j.since(0)) != 1 {
		t.Error("lost")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := j.save(true); err != nil {
		t.Fatal(err)
	}
	again := newJournal(dir, "edge-1", nil, slog.New(slog.DiscardHandler))
	if err := again.load(); err != nil || len(again.since(0)) != 1 {
		t.Errorf("%v, %d kept", err, len(again.since(0)))
	}
}
