package mirror

import (
	"context"
	"fmt"
	"time"

	"kmirror/checkpoint"
	"kmirror/topology"
)

// circleLook is how often a flow looks whether it has become part of a circle that
// mirror.yaml does not show. What it reads is little: who writes to the source.
const circleLook = 15 * time.Second

// circleWatch tells of other deployments that mirror the target of a flow with
// identity naming back into its source. It stops nothing: whether the two have a
// topic in common is not written anywhere.
type circleWatch struct {
	flow  func() *topology.Flow
	reads func(flow string) (cluster string) // as in checkpoint.OriginRule
	world func() *world                      // nil: not known yet
	known *checkpoint.Provenances
	tell  func(Incident)
	told  map[string]bool
}

func (f *flow) newCircleWatch(reads func(flow string) (cluster string)) *circleWatch {
	return &circleWatch{
		flow: f.cfg, reads: reads, world: f.discovery.current.Load, known: checkpoint.NewProvenances(f.source),
		tell: f.incidents.Record, told: map[string]bool{},
	}
}

// Run looks until ctx ends.
func (c *circleWatch) Run(ctx context.Context) {
	wait := time.NewTimer(5 * time.Second)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
			c.look(ctx)
			wait.Reset(circleLook)
		case <-ctx.Done():
			return
		}
	}
}

// look tells what is new. Where the source does not let us read whose its
// producers are, nothing is known.
func (c *circleWatch) look(ctx context.Context) {
	flow, w := c.flow(), c.world()
	if flow.Naming != topology.Identity || len(flow.Drops) > 0 || w == nil || !w.sourceMapped {
		return
	}
	if c.known.Update(ctx) != nil {
		return
	}
	for _, other := range c.known.Unlisted(flow, w.targetID, c.reads) {
		if c.told[other] {
			continue
		}
		c.told[other] = true
		c.tell(aboutTopic(flow.Name, "", KindUnlistedCircle,
			fmt.Sprintf("another deployment's flow %s mirrors %s into %s under the same names: the records of topics that both mirror go round and are doubled each time", other, flow.To, flow.From),
			fmt.Sprintf("nothing was done; write the way back into mirror.yaml, {from: %s, to: %s, naming: identity, paused: true} with its topics, there the way of this flow, and reload; or mirror each topic one way only", flow.To, flow.From)))
	}
}
