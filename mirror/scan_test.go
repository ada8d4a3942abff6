package mirror

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"kmirror/internal/kafka"
	"kmirror/internal/mm2"
	"kmirror/internal/wire"
)

// throttled is a log of a broker with a quota: it answers with nothing at times.
type throttled struct {
	*modelLog
	random *rand.Rand
}

func (l *throttled) Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, readCommitted bool, maxWait time.Duration) (kafka.FetchResult, error) {
	res, err := l.modelLog.Fetch(ctx, topic, partition, offset, min(maxBytes, 400), readCommitted, maxWait)
	if l.random.IntN(2) > 0 {
		res.Records = nil
	}
	return res, err
}

func TestAQuotaIsNotTheEndOfALog(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		l, _ := randomSource(random, 300)
		slow := &throttled{l, random}
		batches := 0
		err := scan(t.Context(), slow, "t", 0, 0, l.end, func(wire.Batch) error { batches++; return nil })
		if err != nil || batches != len(l.batches) {
			t.Errorf("scanned %d batches of %d, error %v", batches, len(l.batches), err)
		}
		count := func(from partitionReader) (n int) {
			r := logReader{from: from, topic: "t"}
			if err := r.read(t.Context(), 0, l.end, func(mm2.Record) bool { n++; return true }); err != nil {
				t.Error(err)
			}
			return n
		}
		if got, want := count(slow), count(l); got != want {
			t.Errorf("read %d records of %d", got, want)
		}
	}
}

func TestAHoleUpToTheEndIsTheEndOfALog(t *testing.T) {
	l, _ := randomSource(rand.New(rand.NewPCG(1, 3)), 50)
	l.end += 5
	batches := 0
	if err := scan(t.Context(), l, "t", 0, 0, l.end, func(wire.Batch) error { batches++; return nil }); err != nil || batches != len(l.batches) {
		t.Errorf("scanned %d batches of %d, error %v", batches, len(l.batches), err)
	}
}
