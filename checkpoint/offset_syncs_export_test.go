package checkpoint

import (
	"context"
	"log/slog"
	"time"
)

// Round looks once.
func (s *OffsetSyncer) Round(ctx context.Context, now time.Time) error { return s.round(ctx, now) }

// Forget is what an error leads to.
func (s *OffsetSyncer) Forget() { s.forget() }

// EnsureInternal makes an internal topic or looks after it.
func EnsureInternal(ctx context.Context, cluster TopicMaker, name string, log *slog.Logger) error {
	return newInternalTopic(name, cluster, compacted(), log).ensure(ctx)
}
