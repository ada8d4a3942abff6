package storage_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// transactional is a batch of n records of a transactional producer.
func transactional(t testing.TB, id int64, epoch int16, sequence int32, n int) wire.Batch {
	t.Helper()
	o := wire.Plain(wire.CodecNone)
	o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = id, epoch, sequence, true
	vs := make([]string, n)
	for i := range vs {
		vs[i] = fmt.Sprintf("t%d-e%d-%d", id, epoch, int(sequence)+i)
	}
	return batchOf(t, o, values(now, vs...)...)
}

// appendVerified appends a transactional batch as a broker does whose
// coordinator agrees.
func appendVerified(l *storage.Log, b wire.Batch) (storage.AppendResult, error) {
	guard, _, err := l.BeginVerification(b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), true)
	if err != nil {
		return storage.AppendResult{BaseOffset: -1}, err
	}
	return l.Append(b, 0, storage.AppendOptions{FromClient: true, Verified: guard})
}

func mustAppendVerified(t testing.TB, l *storage.Log, b wire.Batch) storage.AppendResult {
	t.Helper()
	r, err := appendVerified(l, b)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return r
}

func mustMark(t testing.TB, l *storage.Log, m storage.Marker) int64 {
	t.Helper()
	offset, err := l.AppendMarker(m, 0)
	if err != nil {
		t.Fatalf("marker %+v: %v", m, err)
	}
	return offset
}

// told is what a producer or coordinator is told: an offset, *offset for a
// duplicate, or an error's name.
func told(offset int64, duplicate bool, err error) string {
	switch {
	case err != nil:
		return kerr.TypedErrorForCode(codeOf(err)).Message
	case duplicate:
		return fmt.Sprintf("*%d", offset)
	default:
		return fmt.Sprint(offset)
	}
}

// story is a log that producers and a coordinator write to in turns.
type story struct {
	t *testing.T
	l *storage.Log
}

func newStory(t *testing.T) story {
	t.Helper()
	_, l := newLog(t, func(o *storage.Options, _ *storage.LogConfig) { o.Fsync = storage.FsyncNever })
	return story{t, l}
}

func (s story) is(what, got, want string) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

// plain is a batch outside of transactions.
func (s story) plain(id int64, epoch int16, sequence int32, n int, want string) {
	s.t.Helper()
	r, err := s.l.Append(numbered(s.t, id, epoch, sequence, n), 0, storage.AppendOptions{FromClient: true})
	s.is(fmt.Sprintf("plain %d/%d at %d", id, epoch, sequence), told(r.BaseOffset, r.Duplicate, err), want)
}

// data is a batch of a transaction that the coordinator knows.
func (s story) data(id int64, epoch int16, sequence int32, n int, want string) {
	s.t.Helper()
	r, err := appendVerified(s.l, transactional(s.t, id, epoch, sequence, n))
	s.is(fmt.Sprintf("data %d/%d at %d", id, epoch, sequence), told(r.BaseOffset, r.Duplicate, err), want)
}

// unverified is a batch of a transaction that nobody asked the coordinator about.
func (s story) unverified(id int64, epoch int16, sequence int32, n int, want string) {
	s.t.Helper()
	r, err := s.l.Append(transactional(s.t, id, epoch, sequence, n), 0, storage.AppendOptions{FromClient: true})
	s.is(fmt.Sprintf("unverified %d/%d at %d", id, epoch, sequence), told(r.BaseOffset, r.Duplicate, err), want)
}

func (s story) marker(m storage.Marker, want string) {
	s.t.Helper()
	offset, err := s.l.AppendMarker(m, 0)
	s.is(fmt.Sprintf("marker %+v", m), told(offset, false, err), want)
}

func (s story) stable(want int64) {
	s.t.Helper()
	s.is("last stable offset", fmt.Sprint(s.l.LastStableOffset()), fmt.Sprint(want))
}

func (s story) committed(want ...string) {
	s.t.Helper()
	seen := readCommitted(s.t, s.l, s.l.Start(), 1<<20)
	var got []string
	for _, offset := range slices.Sorted(maps.Keys(seen)) {
		got = append(got, seen[offset])
	}
	s.is("committed", fmt.Sprint(got), fmt.Sprint(want))
}
