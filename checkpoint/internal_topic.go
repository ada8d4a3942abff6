package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// TopicMaker makes internal topics and looks after them. *kafka.Cluster is one.
type TopicMaker interface {
	// EnsureInternalTopic makes a topic unless it is there. One with another
	// number of partitions is a *kafka.PartitionsError.
	EnsureInternalTopic(ctx context.Context, name string, partitions int32, configs map[string]string) error
	TopicConfigs(ctx context.Context, topics []string) (map[string]map[string]kafka.ConfigEntry, error)
	AlterTopicConfigs(ctx context.Context, topic string, set map[string]string, remove []string) error
}

const cleanupPolicy = "cleanup.policy"

// compacted are the configs of MirrorMaker 2's internal topics.
func compacted() map[string]string { return map[string]string{cleanupPolicy: "compact"} }

// smallSegments are the configs of a topic of which readers take all at every
// call or start: it is compacted only behind its active segment.
func smallSegments() map[string]string {
	configs := compacted()
	configs["segment.bytes"] = "16777216"
	return configs
}

// internalTopic is one of MirrorMaker 2's topics (one partition, compacted), as
// its writer sees it. The zero made is not yet looked at. Everything but skipped
// is owned by the one who calls ensure.
type internalTopic struct {
	name    string
	cluster TopicMaker
	configs map[string]string // of a new one
	log     *slog.Logger

	made    bool         // it is there, or is taken to be
	said    string       // the last word about it
	skipped atomic.Int64 // records that could not be read
}

func newInternalTopic(name string, cluster TopicMaker, configs map[string]string, log *slog.Logger) *internalTopic {
	return &internalTopic{name: name, cluster: cluster, configs: configs, log: log.With(slog.String("topic", name))}
}

// ensure makes the topic, or puts the one that is there in order, unless that
// was done. As with MirrorMaker 2, one that may not be created or looked at is
// taken to be there: writing to it tells. More than one partition is no harm,
// all readers take partition 0; a cleanup policy that would delete records is
// set right. Each is said once. Anything else is an error, to be tried again.
func (t *internalTopic) ensure(ctx context.Context) error {
	if t.made {
		return nil
	}
	err := t.cluster.EnsureInternalTopic(ctx, t.name, 1, t.configs)
	var count *kafka.PartitionsError
	switch {
	case err == nil:
		err = t.keepCompacted(ctx)
	case errors.As(err, &count) && count.Have > 0:
		t.say("more partitions than one: only partition 0 is written, as only that one is read", slog.Int("partitions", count.Have))
		err = t.keepCompacted(ctx)
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.UnsupportedVersion):
		t.say("it may not be created or looked at: it is taken to be there", slog.Any("error", err))
		err = nil
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", t.name, err)
	}
	t.made = true
	return nil
}

// keepCompacted sets the cleanup policy right: "delete" would take away
// checkpoints of groups at rest. A cluster that lets nobody look or alter gets
// a word only.
func (t *internalTopic) keepCompacted(ctx context.Context) error {
	all, err := t.cluster.TopicConfigs(ctx, []string{t.name})
	entry, known := all[t.name][cleanupPolicy]
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil || !known:
		t.say("its cleanup policy cannot be read", slog.Any("error", err))
		return nil
	case strings.TrimSpace(entry.Value) == "compact":
		return nil
	}
	if err := t.cluster.AlterTopicConfigs(ctx, t.name, compacted(), nil); err != nil {
		t.say("it is not compacted, and that cannot be altered: what is old in it gets lost",
			slog.String("cleanup_policy", entry.Value), slog.Any("error", err))
		return ctx.Err()
	}
	t.say("it was not compacted: it is now", slog.String("cleanup_policy", entry.Value))
	return nil
}

// say warns, unless it was said last.
func (t *internalTopic) say(what string, attrs ...any) {
	if said := fmt.Sprint(what, attrs); said != t.said {
		t.said = said
		t.log.Warn("an internal topic is not as it should be", append([]any{slog.String("found", what)}, attrs...)...)
	}
}

// lost notes that writing failed: the topic may have been deleted.
func (t *internalTopic) lost() { t.made = false }

// read hands over the records of partition 0 from first to last. Those for
// which fn has an error (corrupt, or somebody else's) are passed over, counted
// and named.
func (t *internalTopic) read(ctx context.Context, from Reader, fn func(wire.Record) error) error {
	start, err := from.ListOffset(ctx, t.name, 0, earliest)
	if err != nil {
		return fmt.Errorf("read %s: %w", t.name, err)
	}
	skipped := int64(0)
	var first error
	_, err = from.Read(ctx, t.name, 0, start, func(rec wire.Record) error {
		if fault := fn(rec); fault != nil {
			if skipped++; first == nil {
				first = fmt.Errorf("%s/0@%d: %w", t.name, rec.Offset, fault)
			}
		}
		return nil
	})
	if skipped > 0 {
		t.say("records that cannot be read: they are passed over", slog.Int64("records", skipped), slog.Any("first", first))
	}
	t.skipped.Store(skipped)
	if err != nil {
		return fmt.Errorf("read %s: %w", t.name, err)
	}
	return nil
}
