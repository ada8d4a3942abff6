package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"kmirror/checkpoint"
)

// formerKept is for how long what is kept of a former incarnation stays after another
// took its place: time to look into what happened, though nothing needs it.
const formerKept = 7 * 24 * time.Hour

// maxFormer bounds the former incarnations that one pass looks at in one partition of
// the map's topic.
const maxFormer = 32

// formerTopic is an incarnation of a source topic that was deleted, as was the target
// topic that it was mirrored into.
type formerTopic struct {
	id    [16]byte
	since time.Time // when another took its place, by the clock of who wrote that down
}

// formerTopics finds them among the pairs of a topic.
func formerTopics(key checkpoint.Key, pair *topicPair, pairs []checkpoint.TopicPair, now time.Time) []formerTopic {
	var none [16]byte
	if key.TopicID == none || pair.target.ID == none {
		return nil // whether it is the same nobody knows
	}
	var all []formerTopic
	last := map[[16]byte]int{}
	stays := map[[16]byte]bool{none: true, key.TopicID: true}
	for i, p := range pairs {
		last[p.SourceID] = i
		if p.TargetTopic != pair.targetName || p.TargetID == none || p.TargetID == pair.target.ID {
			stays[p.SourceID] = true
		}
	}
	for i, p := range pairs {
		if stays[p.SourceID] || last[p.SourceID] != i {
			continue
		}
		since := now
		if i+1 < len(pairs) && pairs[i+1].TimeMillis > 0 {
			since = time.UnixMilli(pairs[i+1].TimeMillis)
		}
		all = append(all, formerTopic{p.SourceID, since})
	}
	return all
}

// former has removed what is kept of former incarnations of the partitions held here.
func (h *housekeeper) former(ctx context.Context) error {
	type part struct {
		key  checkpoint.Key
		lane *lane
	}
	due := map[int32][]part{}
	flow := ""
	for p := range int32(checkpoint.MapPartitions) {
		for _, l := range h.held(p) {
			for _, f := range l.former {
				key := l.key
				key.TopicID = f.id
				at := key.MapPartition()
				if _, done := h.buried[key]; done || time.Since(f.since) < formerKept || len(due[at]) == maxFormer {
					continue
				}
				due[at] = append(due[at], part{key, l})
				flow = key.Flow
			}
		}
	}
	if len(due) == 0 {
		return nil
	}
	whose := checkpoint.Key{Flow: flow}
	known, err := h.load(ctx, whose.MapPartition(), []checkpoint.Key{whose})
	if err != nil {
		return fmt.Errorf("read whose producer ids are whose: %w", err)
	}
	for at, parts := range due {
		keys := make([]checkpoint.Key, 0, len(parts))
		for _, p := range parts {
			keys = append(keys, p.key)
		}
		all, err := h.load(ctx, at, keys)
		if err != nil {
			return err
		}
		for _, p := range parts {
			h.forget(p.lane, p.key, all[p.key], known[whose].Declared)
			delete(all, p.key)
		}
	}
	return nil
}

// forget has one of them removed.
func (h *housekeeper) forget(l *lane, key checkpoint.Key, loaded checkpoint.Loaded, declared map[int64]struct{}) {
	chores := checkpoint.Forget(key, loaded, declared)
	if len(chores.Records) == 0 {
		if h.buried == nil {
			h.buried = map[checkpoint.Key]struct{}{}
		}
		h.buried[key] = struct{}{}
		return
	}
	if !h.tidyFormer(l.key, key, chores.Records) {
		return
	}
	h.log.Info("removes from the offset map what is left of a topic that was deleted on both sides", slog.String("topic", key.Topic),
		slog.Int("partition", int(key.Partition)), slog.String("source_topic_id", fmt.Sprintf("%x", key.TopicID)), slog.Int("records", len(chores.Records)))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done.Removed += int64(len(chores.Records))
}
