package mirror

import (
	"context"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
)

// producers gives out producer epochs. A producer id belongs to one flow in one
// life of one instance. Each attempt on a partition takes a fresh epoch of it,
// so that sequences begin at 0, an anchor is never written twice with different
// meanings, and what an earlier attempt left under way is refused once the new
// epoch has written (KIP-360: a broker takes a higher epoch that begins at 0).
type producers struct {
	initialise func(ctx context.Context) (id int64, epoch int16, err error)

	asking chan struct{} // capacity 1: whoever filled it owns the fields below
	id     int64
	first  int16
	epochs map[partitionID]int16 // the next one
}

func newProducers(target *kafka.Cluster) *producers {
	return &producers{asking: make(chan struct{}, 1), initialise: func(ctx context.Context) (int64, int16, error) {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.ProducerID, req.ProducerEpoch = -1, -1
		raw, err := target.Request(ctx, req)
		if err != nil {
			return 0, 0, fmt.Errorf("init producer id: %w", err)
		}
		resp, ok := raw.(*kmsg.InitProducerIDResponse)
		if !ok {
			return 0, 0, fmt.Errorf("init producer id: answered with %T", raw)
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return 0, 0, fmt.Errorf("init producer id: %w", err)
		}
		return resp.ProducerID, resp.ProducerEpoch, nil
	}}
}

// next returns an epoch that nothing was written under.
func (p *producers) next(ctx context.Context, partition partitionID) (id int64, epoch int16, err error) {
	select {
	case p.asking <- struct{}{}:
		defer func() { <-p.asking }()
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	if p.epochs == nil || p.epochs[partition] == math.MaxInt16 {
		if p.id, p.first, err = p.initialise(ctx); err != nil {
			return 0, 0, err
		}
		p.epochs = map[partitionID]int16{}
	}
	epoch, ok := p.epochs[partition]
	if !ok {
		epoch = p.first
	}
	p.epochs[partition] = epoch + 1
	return p.id, epoch, nil
}
