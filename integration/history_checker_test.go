package integration_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestHistoryChecker holds the checker itself against made-up logs: it must
// find every kind of fault, and nothing where there is none.
func TestHistoryChecker(t *testing.T) {
	type logs = map[int32][]*kgo.Record
	tests := []struct {
		name  string
		spoil func(logs)
		want  verdict
	}{
		{"as sent", func(logs) {}, verdict{}},
		{"a pending record is missing", func(l logs) { l[0] = slices.Delete(l[0], 9, 10) }, verdict{}},
		{"a confirmed record is missing", func(l logs) { l[0] = slices.Delete(l[0], 4, 5) }, verdict{lost: []string{"0#4"}}},
		{"a partition is missing", func(l logs) { delete(l, 1) }, verdict{lost: []string{
			"1#0", "1#1", "1#2", "1#3", "1#4", "1#5", "1#6", "1#7", "1#8",
		}}},
		{"a record twice in a row", func(l logs) { l[1] = slices.Insert(l[1], 3, l[1][2]) }, verdict{doubled: []string{"1#2@2"}}},
		{"a stretch written again", func(l logs) { l[1] = append(l[1], l[1][7:9]...) }, verdict{doubled: []string{"1#7@7", "1#8@8"}}},
		{"two records changed places", func(l logs) { l[0][2], l[0][3] = l[0][3], l[0][2] }, verdict{reordered: []string{"0#2@2 after #3"}}},
		{"a record in another partition", func(l logs) {
			l[1] = append(l[1], l[0][5])
			l[0] = slices.Delete(l[0], 5, 6)
		}, verdict{changed: []string{"0#5@5: partition 1"}, reordered: []string{"0#5@5 after #9"}}},
		{"a key became empty", func(l logs) { spoilt(l, 0, 1).Key = []byte{} }, verdict{changed: []string{`0#1@1: key "", was "key-`}}},
		{"a value was cut", func(l logs) { spoilt(l, 0, 1).Value = []byte("x") }, verdict{changed: []string{"0#1@1: value of 1 bytes, was "}}},
		{"a timestamp moved", func(l logs) { r := spoilt(l, 1, 6); r.Timestamp = r.Timestamp.Add(time.Millisecond) }, verdict{changed: []string{"1#6@6: timestamp "}}},
		{"a header more", func(l logs) { r := spoilt(l, 1, 6); r.Headers = append(r.Headers, kgo.RecordHeader{Key: "x"}) }, verdict{changed: []string{"1#6@6: headers "}}},
		{"a stranger's record", func(l logs) { l[0] = append(l[0], &kgo.Record{Offset: 10, Value: []byte("hello")}) }, verdict{alien: []string{`0@10: "hello"`}}},
		{"a record from the future", func(l logs) { l[0] = append(l[0], newHistory("made-up", 2, 64).record(0, 77)) }, verdict{alien: []string{"0@0: "}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := newHistory("made-up", 2, 64)
			read := logs{}
			for partition := range int32(2) {
				for number := range 10 {
					r := h.next(partition)
					if number < 9 { // the last one stays without an answer, yet is in the log
						h.ack(r)
					}
					r.Offset = int64(number)
					read[partition] = append(read[partition], r)
				}
			}
			test.spoil(read)
			got := h.check(read)
			for _, kind := range []struct {
				name      string
				got, want []string
			}{
				{"lost", got.lost, test.want.lost},
				{"doubled", got.doubled, test.want.doubled},
				{"reordered", got.reordered, test.want.reordered},
				{"changed", got.changed, test.want.changed},
				{"alien", got.alien, test.want.alien},
			} {
				if !slices.EqualFunc(kind.got, kind.want, func(got, want string) bool {
					return bytes.Contains([]byte(got), []byte(want))
				}) {
					t.Errorf("%s: got %q, want %q", kind.name, kind.got, kind.want)
				}
			}
			if clean := test.want.String() == ""; got.ok() != clean {
				t.Errorf("ok() = %v, want %v: %s", got.ok(), clean, got)
			}
		})
	}
}

// spoilt replaces a record by a copy that the test may change.
func spoilt(logs map[int32][]*kgo.Record, partition int32, at int) *kgo.Record {
	changed := *logs[partition][at]
	changed.Headers = slices.Clone(changed.Headers)
	logs[partition][at] = &changed
	return &changed
}

// TestDifference holds that null and empty are not the same to the checker.
func TestDifference(t *testing.T) {
	null := &kgo.Record{Key: []byte("k")}
	empty := &kgo.Record{Key: []byte("k"), Value: []byte{}}
	if got, want := difference(null, empty), `value of 0 bytes, was 0: "", was ""`; got != want {
		t.Errorf("null value became empty: got %q, want %q", got, want)
	}
	if got := difference(null, &kgo.Record{Key: []byte("k"), Offset: 7, Partition: 3}); got != "" {
		t.Errorf("the same record elsewhere: got %q", got)
	}
}

func TestSameLogs(t *testing.T) {
	h := newHistory("made-up", 2, 64)
	a := map[int32][]*kgo.Record{0: {h.record(0, 0), h.record(0, 1)}, 1: {h.record(1, 0)}}
	b := map[int32][]*kgo.Record{0: {h.record(0, 0), h.record(0, 1)}, 1: {h.record(1, 0)}}
	b[0][1].Offset = 17 // where a record stands does not count
	if got := sameLogs(a, b); got != "" {
		t.Errorf("the same logs: %s", got)
	}
	b[1] = nil
	if got, want := sameLogs(a, b), "partition 1: 0 records, were 1"; got != want {
		t.Errorf("a record less: got %q, want %q", got, want)
	}
	b[1] = []*kgo.Record{h.record(1, 1)}
	if got := sameLogs(a, b); got == "" {
		t.Error("another record: no difference found")
	}
}
