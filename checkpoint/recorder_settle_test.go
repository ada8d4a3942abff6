package checkpoint_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// slowAppender takes a write when it is let.
type slowAppender struct {
	*memoryLogs
	gate chan struct{}
}

func (s *slowAppender) Append(ctx context.Context, topic string, partition int32, records []wire.Record) (int64, error) {
	select {
	case <-s.gate:
		return s.memoryLogs.Append(ctx, topic, partition, records)
	case <-ctx.Done():
		return -1, context.Cause(ctx)
	}
}

// Who takes a partition up again in the same life reads the map when all that was
// recorded before is in it, whether its writing has begun or not.
func TestSettle(t *testing.T) {
	for name, begun := range map[string]bool{"before it is written": false, "while it is written": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				logs := &slowAppender{newMemoryLogs(), make(chan struct{})}
				r := checkpoint.NewRecorder(logs, slog.New(slog.DiscardHandler))
				if err := r.Settle(t.Context(), key()); err != nil {
					t.Fatal(err)
				}
				r.Resume(key(), &checkpoint.Runs{})
				if err := r.Acked(key(), checkpoint.Run{Count: 10}); err != nil {
					t.Fatal(err)
				}
				flushed := make(chan error, 1)
				if begun {
					go func() { flushed <- r.Flush(t.Context()) }()
					synctest.Wait()
				}
				r.Forget(key())
				settled := make(chan error, 1)
				go func() { settled <- r.Settle(t.Context(), key()) }()
				synctest.Wait()
				if len(settled) > 0 {
					t.Error("it is not written yet")
				}
				logs.gate <- struct{}{}
				if err := <-settled; err != nil {
					t.Fatal(err)
				}
				loaded, err := checkpoint.LoadPartition(t.Context(), logs, key())
				if err != nil {
					t.Fatal(err)
				}
				if source, _, _ := loaded.Runs.End(); source != 10 {
					t.Errorf("the map ends at %d, want 10", source)
				}
				if begun {
					if err := <-flushed; err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}
