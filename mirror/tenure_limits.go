package mirror

import (
	"context"
	"fmt"
	"strings"
)

// limits is what the ladder has to keep to, as it is now.
func (t *tenure) limits() ladderLimits {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.treated.treat(t.flow.cfg(), t.id.Topic)
	limits := ladderLimits{inflate: inflateLimit, maxBatch: t.maxBatch, filter: t.treated.filter, letters: t.treated.letters, plain: t.plain}
	if t.treated.circles {
		limits.origins = t.flow.origins
	}
	return limits
}

// measure takes in that the target refused a batch as too large while it said
// that it takes limit bytes (0: it does not say), and returns what is sent at
// most from now on.
func (t *tenure) measure(limit int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case limit > 0 && (t.maxBatch == 0 || limit < t.maxBatch):
		t.maxBatch = limit
	case t.maxBatch == 0:
		t.maxBatch = 1 << 20
	default: // it refuses what it says it takes: come down by halves
		t.maxBatch = max(t.maxBatch/2, minBatch)
	}
	t.told = limit
	return t.maxBatch
}

// minBatch is what every target is believed to take.
const minBatch = 1 << 10

// remeasure looks whether the target topic takes another size than when it
// refused a batch: somebody may have raised it.
func (t *tenure) remeasure(ctx context.Context, topic string) error {
	t.mu.Lock()
	measured, told := t.maxBatch > 0, t.told
	t.mu.Unlock()
	if !measured {
		return nil
	}
	limit, err := t.maxMessageBytes(ctx, topic)
	if err != nil {
		return err
	}
	if limit != told {
		t.mu.Lock()
		t.maxBatch, t.told = limit, limit
		t.mu.Unlock()
	}
	return nil
}

// maxMessageBytes is the target topic's own limit; 0 if the target does not tell.
func (t *tenure) maxMessageBytes(ctx context.Context, topic string) (int, error) {
	configs, err := t.flow.target.TopicConfigs(ctx, []string{topic})
	if err != nil {
		return 0, fmt.Errorf("read max.message.bytes of %s: %w", topic, err)
	}
	var limit int
	if _, err := fmt.Sscan(strings.TrimSpace(configs[topic]["max.message.bytes"].Value), &limit); err != nil {
		return 0, nil //nolint:nilerr // an empty or absent value: not told
	}
	return limit, nil
}
