package integration_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// load writes a history's records to a cluster, at a steady pace, until it is
// finished. The cluster may die and come back meanwhile.
type load struct {
	t       testing.TB
	h       *history
	client  *kgo.Client
	quit    chan struct{} // closed: write no more
	stopped chan struct{} // closed: nothing more is written

	mu   sync.Mutex // guards the field below
	errs []error
}

// load starts to write records to the history's topic, perSecond in all.
func (w *world) load(cluster string, h *history, perSecond int) *load {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: w.t, h: h, quit: make(chan struct{}), stopped: make(chan struct{})}
	l.client = w.client(cluster, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(2*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.MaxBufferedRecords(20_000))
	w.t.Cleanup(func() { cancel(); l.stop() })
	go l.run(ctx, perSecond)
	return l
}

func (l *load) run(ctx context.Context, perSecond int) {
	defer close(l.stopped)
	const pace = 10 * time.Millisecond
	partitions := int32(len(l.h.fates))
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for turn := int32(0); ; {
		for range max(1, perSecond*int(pace)/int(time.Second)) {
			turn++
			r := l.h.next(turn % partitions)
			l.client.Produce(ctx, r, func(r *kgo.Record, err error) {
				if err == nil {
					l.h.ack(r)
				} else if ctx.Err() == nil {
					l.mu.Lock()
					l.errs = append(l.errs, fmt.Errorf("%s/%d: %w", r.Topic, r.Partition, err))
					l.mu.Unlock()
				}
			})
		}
		select {
		case <-l.quit:
			return
		case <-ticker.C:
		}
	}
}

// stop stops the writing; what is on its way stays on its way.
func (l *load) stop() {
	select {
	case <-l.quit:
	default:
		close(l.quit)
	}
	<-l.stopped
}

// finish stops the writing and waits until every record sent is confirmed.
func (l *load) finish() {
	l.t.Helper()
	l.stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := l.client.Flush(ctx)
	sent, confirmed := l.h.counts()
	if err != nil {
		l.t.Fatalf("%s: %d of %d records confirmed a minute after the load ended: %v", l.h.topic, confirmed, sent, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errs) > 0 {
		l.t.Errorf("%s: %d of %d records refused, the first: %v", l.h.topic, len(l.errs), sent, l.errs[0])
	}
}

// write sends so many records to each partition of the history's topic.
func (w *world) write(cluster string, h *history, each int, options ...kgo.Opt) {
	w.t.Helper()
	client := w.client(cluster, append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, options...)...)
	defer client.Close()
	var failed sync.Once
	for range each {
		for partition := range int32(len(h.fates)) {
			client.Produce(context.Background(), h.next(partition), func(r *kgo.Record, err error) {
				if err == nil {
					h.ack(r)
				} else {
					failed.Do(func() { w.t.Errorf("write %s/%d in %s: %v", r.Topic, r.Partition, cluster, err) })
				}
			})
		}
	}
	if err := client.Flush(w.ctx(time.Minute)); err != nil {
		w.t.Fatalf("write %s in %s: %v", h.topic, cluster, err)
	}
}

// mirrored waits until the target topic holds as many records as the source
// topic, reads both, and returns them. The clocks of a test say only when it
// gives up: as long as something moves, it waits.
func (w *world) mirrored(source, topic, target, mirror string) (want, got map[int32][]*kgo.Record) {
	w.t.Helper()
	want = w.read(source, topic)
	admin := w.admin(target)
	const patience = 45 * time.Second
	var last map[int32]int64
	for moved := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		ends := w.ends(admin, mirror)
		behind := len(ends) == 0
		for partition, records := range want {
			behind = behind || ends[partition] < int64(len(records))
		}
		if !behind {
			// Offsets may hold markers too, so only the records themselves decide.
			if got = w.read(target, mirror); count(got) >= count(want) {
				break
			}
		}
		if !maps.Equal(ends, last) {
			last, moved = ends, time.Now()
		}
		if time.Since(moved) > patience {
			w.t.Fatalf("%s in %s stands at %v for %v; %s in %s has %d records", mirror, target, ends, patience, topic, source, count(want))
		}
	}
	// Doubled records would come now.
	time.Sleep(500 * time.Millisecond)
	return want, w.read(target, mirror)
}

// exact fails the test unless the source topic holds what the history says and
// the mirror holds exactly what the source topic holds.
func (w *world) exact(h *history, source, target, mirror string) {
	w.t.Helper()
	want, got := w.mirrored(source, h.topic, target, mirror)
	if v := h.check(want); !v.ok() {
		w.t.Errorf("%s in %s is not what was written:\n%s", h.topic, source, v)
	}
	if v := h.check(got); !v.ok() {
		w.t.Errorf("%s in %s is not what was written:\n%s", mirror, target, v)
	}
	if what := sameLogs(want, got); what != "" {
		w.t.Errorf("%s in %s is not what %s in %s is: %s", mirror, target, h.topic, source, what)
	}
	sent, confirmed := h.counts()
	w.t.Logf("%s: %d sent, %d confirmed, %d in %s, %d in %s", h.topic, sent, confirmed, count(want), source, count(got), target)
}
