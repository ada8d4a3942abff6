package mirror

import (
	"context"
	"fmt"
	"sync"

	"kmirror/checkpoint"
)

// loader reads ledgers and maps. Requests that wait for the same partition of
// the map topic share one read, which begins after all of them were made: what
// a former owner wrote before it let go is in it.
type loader struct {
	load func(ctx context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error)

	mu      sync.Mutex               // guards the fields below
	waiting map[int32][]*loadRequest // by map partition
	busy    map[int32]bool           // a read is under way
}

type loadRequest struct {
	key    checkpoint.Key
	result checkpoint.Loaded
	err    error
	done   chan struct{}
}

func newLoader(load func(ctx context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error)) *loader {
	return &loader{load: load, waiting: map[int32][]*loadRequest{}, busy: map[int32]bool{}}
}

// get reads what is known about key. Whoever comes first to an idle map
// partition reads for all who wait.
func (l *loader) get(ctx context.Context, key checkpoint.Key) (checkpoint.Loaded, error) {
	r := &loadRequest{key: key, done: make(chan struct{})}
	at := key.MapPartition()
	l.mu.Lock()
	l.waiting[at] = append(l.waiting[at], r)
	mine := !l.busy[at]
	l.busy[at] = true
	l.mu.Unlock()
	if mine {
		l.serve(ctx, at)
	}
	select {
	case <-r.done:
		return r.result, r.err
	case <-ctx.Done():
		return checkpoint.Loaded{}, ctx.Err()
	}
}

func (l *loader) serve(ctx context.Context, at int32) {
	for {
		l.mu.Lock()
		batch := l.waiting[at]
		delete(l.waiting, at)
		if len(batch) == 0 {
			l.busy[at] = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		keys := make([]checkpoint.Key, 0, len(batch))
		for _, r := range batch {
			keys = append(keys, r.key)
		}
		results, err := l.load(ctx, at, keys)
		for _, r := range batch {
			result, ok := results[r.key]
			switch {
			case err != nil: // if only the reader was cancelled, the others ask again
				r.err = err
			case !ok:
				r.err = fmt.Errorf("read %s: no answer for %s/%d", checkpoint.MapTopic, r.key.Topic, r.key.Partition)
			default:
				r.result = result
			}
			close(r.done)
		}
	}
}
