package mirror

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// mirrored makes a source and a target that holds its first batch, under
// producer 5, and what the ledger says about it.
func mirrored(t *testing.T) (source, target *modelLog, ledger *checkpoint.Ledger) {
	t.Helper()
	source, target = &modelLog{}, &modelLog{}
	b := batchOf(t, wire.Plain(wire.CodecLZ4), 0, "a", "b", "c")
	source.store(b)
	copied := slices.Clone(b)
	copied.Rewrite(wire.HeaderEdit{ProducerID: 5})
	if _, err := target.append(copied); err != nil {
		t.Fatal(err)
	}
	ledger = &checkpoint.Ledger{}
	ledger.Add(checkpoint.Anchor{ProducerID: 5, Steps: []checkpoint.Step{{Sequence: 0, Source: 0}}})
	return source, target, ledger
}

// checkSeam compares one batch with the source. compared: nothing of it is in doubt.
func checkSeam(ctx context.Context, source partitionReader, b wire.Batch, carries []checkpoint.Run) (compared bool, err error) {
	start, err := source.ListOffset(ctx, "s", 0, atEarliest)
	if err != nil {
		return false, err
	}
	end, err := source.ListOffset(ctx, "s", 0, atLatest)
	if err != nil {
		return false, err
	}
	s := &seam{source: newCursor(source, "s", 0, end), target: "t", start: start}
	open, err := s.compare(ctx, b, carries)
	return err == nil && len(open) == 0, err
}

func TestStandReadsThePositionOffTheTarget(t *testing.T) {
	source, target, ledger := mirrored(t)
	target.store(batchOf(t, wire.Plain(wire.CodecNone), 0, "stranger"))
	runs := &checkpoint.Runs{}
	st, err := stand(context.Background(), target, "t", 0, ledger, runs)
	if err != nil {
		t.Fatal(err)
	}
	if next, ok := nextSource(runs); !ok || next != 3 || st.end != 4 {
		t.Errorf("stands at %d (%v), end %d; want 3 and 4", next, ok, st.end)
	}
	if compared, err := checkSeam(t.Context(), source, st.last, st.carries); err != nil || !compared {
		t.Errorf("seam: compared %v, %v", compared, err)
	}
}

func TestStandCutsTheMapWhenTheTargetLostItsTail(t *testing.T) {
	_, target, ledger := mirrored(t)
	runs := &checkpoint.Runs{}
	if err := runs.Add(checkpoint.Run{Source: 0, Target: 0, Count: 10}); err != nil {
		t.Fatal(err)
	}
	st, err := stand(context.Background(), target, "t", 0, ledger, runs)
	if err != nil {
		t.Fatal(err)
	}
	if next, _ := nextSource(runs); next != 3 || st.lost != 7 {
		t.Errorf("stands at %d with %d lost; want 3 and 7", next, st.lost)
	}
}

func TestStandTellsWhatStandsTwice(t *testing.T) {
	_, target, ledger := mirrored(t)
	ledger.Add(checkpoint.Anchor{ProducerID: 6, Steps: []checkpoint.Step{{Sequence: 0, Source: 1}}})
	again := batchOf(t, wire.Plain(wire.CodecNone), 0, "b", "c")
	again.Rewrite(wire.HeaderEdit{ProducerID: 6})
	if _, err := target.append(again); err != nil {
		t.Fatal(err)
	}
	runs := &checkpoint.Runs{}
	st, err := stand(context.Background(), target, "t", 0, ledger, runs)
	if err != nil {
		t.Fatal(err)
	}
	if len(st.doubled) != 1 || st.doubled[0] != (checkpoint.Run{Source: 1, Target: 3, Count: 2}) {
		t.Errorf("doubled: %v", st.doubled)
	}
	if next, _ := nextSource(runs); next != 3 {
		t.Errorf("stands at %d, want 3", next)
	}
}

func TestStandRefusesALedgerThatLostAnAnchor(t *testing.T) {
	_, target, _ := mirrored(t)
	ledger := &checkpoint.Ledger{}
	ledger.Add(checkpoint.Anchor{ProducerID: 5, Steps: []checkpoint.Step{{Sequence: 2, Source: 2}}})
	_, err := stand(context.Background(), target, "t", 0, ledger, &checkpoint.Runs{})
	if unanchored := (*checkpoint.UnanchoredError)(nil); !errors.As(err, &unanchored) {
		t.Errorf("got %v, want an UnanchoredError", err)
	}
}

func TestSeam(t *testing.T) {
	carries := []checkpoint.Run{{Source: 0, Target: 0, Count: 3}}
	for name, tt := range map[string]struct {
		change   func(source *modelLog)
		compared bool
		want     string
	}{
		"fits":                   {func(*modelLog) {}, true, ""},
		"another value":          {func(l *modelLog) { l.batches[0] = batchOf(t, wire.Plain(wire.CodecNone), 0, "a", "b", "X") }, true, "the values differ"},
		"the source lost them":   {func(l *modelLog) { l.start = 3 }, false, ""},
		"the source kept a part": {func(l *modelLog) { l.start = 2 }, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			source, target, _ := mirrored(t)
			tt.change(source)
			compared, err := checkSeam(t.Context(), source, target.batches[0], carries)
			if compared != (tt.compared && tt.want == "") {
				t.Errorf("compared: %v", compared)
			}
			if seam := (*seamError)(nil); tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &seam) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
