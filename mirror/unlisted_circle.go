package mirror

import (
	"context"
	"fmt"
	"sync"
	"time"

	"kmirror/checkpoint"
	"kmirror/topology"
)

// circleLook is how often a flow looks whether it has become part of a circle that
// mirror.yaml does not show. What it reads is little: who writes to the source.
const circleLook = 2 * time.Second

// circleLookLimit bounds what a partition that begins waits for the first look.
const circleLookLimit = 5 * time.Second

// circleWatch finds topics that go round: another deployment mirrors the target of
// a flow with identity naming back into its source, which mirror.yaml does not show.
// Every record of such a topic would be doubled again and again, at the speed of the
// wire, so its partitions stop. Where mirror.yaml shows the circle, see origins.
//
// A partition looks before it begins, and finds a flow that was there before: what it
// mirrors it has written down before its first batch, so nothing goes round. Of two
// flows that begin with a topic at the same moment both may find nothing; and a source
// without an offset map is looked at again when the metadata shows one. Then the looks
// of Run find it, and records have gone round for as long as one of them takes. An operator's word holds for a partition
// as long as this instance carries the flow.
type circleWatch struct {
	flow  func() *topology.Flow
	reads func(flow string) (cluster string) // as in checkpoint.OriginRule
	world func() *world                      // nil: not known yet
	tell  func(Incident)
	fault func(topic string, err error) // ends the attempts of a topic's partitions

	looking sync.Mutex              // held during a look; guards the fields below
	known   *checkpoint.Provenances // of the source
	began   time.Time               // of the last look

	mu      sync.Mutex            // guards the fields below
	circles map[string]*haltError // by topic
	held    map[partitionID]bool  // partitions that were stopped for it once
}

func (f *flow) newCircleWatch(reads func(flow string) (cluster string)) *circleWatch {
	return &circleWatch{
		flow: f.cfg, reads: reads, world: f.discovery.current.Load, tell: f.incidents.Record, fault: f.faultTopic,
		known: checkpoint.NewProvenances(f.source), circles: map[string]*haltError{}, held: map[partitionID]bool{},
	}
}

// faultTopic ends the attempts of a topic's partitions.
func (f *flow) faultTopic(topic string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, h := range f.tenures {
		if id.Topic != topic {
			continue
		}
		if l := h.tenure.laneNow(); l != nil {
			l.fault(err)
		}
	}
}

// Run looks until ctx ends.
func (c *circleWatch) Run(ctx context.Context) {
	tick := time.NewTicker(circleLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.look(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// stop returns why a partition is not to begin, the first time that it is asked; nil
// if it may. The topics of source and target are known when it is called. It is for a
// nil *circleWatch too.
func (c *circleWatch) stop(ctx context.Context, id partitionID) *haltError {
	if c == nil {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, circleLookLimit)
	c.look(limited)
	cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.circles[id.Topic]
	if found == nil || c.held[id] {
		return nil
	}
	c.held[id] = true
	return found
}

// look finds what goes round by now. Where the source does not let us read whose its
// producers are, nothing is known, and nothing stops for it. Those who wait for a look
// share the next one.
func (c *circleWatch) look(ctx context.Context) {
	asked := time.Now()
	c.looking.Lock()
	defer c.looking.Unlock()
	if c.began.After(asked) {
		return
	}
	c.began = time.Now()
	flow, w := c.flow(), c.world()
	if w == nil {
		return
	}
	if !w.sourceMapped || c.known.Update(ctx) != nil {
		return
	}
	others := c.known.Unlisted(flow, w.targetID, c.reads)
	for _, pair := range w.topics {
		if pair.targetName != pair.source.Name { // MirrorMaker 2's heartbeats
			continue
		}
		for _, other := range others {
			if c.known.Mirrors(other, pair.source.Name, pair.source.ID) {
				c.found(flow, pair.source.Name, other)
				break
			}
		}
	}
}

// found stops a topic, once.
func (c *circleWatch) found(flow *topology.Flow, topic, other string) {
	c.mu.Lock()
	known := c.circles[topic] != nil
	detail := fmt.Sprintf("the flow %s of another deployment, or of an earlier mirror.yaml, mirrors topic %s of %s into %s under the same name: each record would come back, and be doubled again and again", other, topic, flow.To, flow.From)
	action := fmt.Sprintf("stopped; write the way back into mirror.yaml, {from: %s, to: %s, naming: identity, paused: true} with its topics, and this way into the other one's; or mirror the topic one way only. To go on all the same: kmirror resume '%s' %s --accept %s",
		flow.To, flow.From, flow.Name, topic, KindUnlistedCircle)
	halt := &haltError{KindUnlistedCircle, detail + "; " + action}
	if !known {
		c.circles[topic] = halt
	}
	c.mu.Unlock()
	if known {
		return
	}
	c.tell(aboutTopic(flow.Name, topic, KindUnlistedCircle, detail, action))
	c.fault(topic, halt)
}
