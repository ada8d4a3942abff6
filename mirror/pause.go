package mirror

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// statePaused is a partition that somebody paused; see the others.
const statePaused = "paused"

// accepted says whether the operator accepted this kind of incident for the
// partition, and uses the acceptance up: it holds for one attempt.
func (f *flow) accepted(id partitionID, kind string) bool { return f.orders.accepted(id, kind) }

// woken is signalled when the operator wants the partition looked at now; a
// tenure that backs off waits for it too.
func (f *flow) woken(id partitionID) <-chan struct{} { return f.orders.woken(id) }

// paused says why a topic is not to be mirrored at present, "" when it is.
// Before the orders are known it is not: one of them might be a pause.
func (f *flow) paused(topic string) string {
	cfg := f.cfg()
	if cfg.Paused(topic) {
		return "paused in mirror.yaml"
	}
	select {
	case <-f.orders.known:
	default:
		return "what is paused is not known yet"
	}
	return f.orders.paused(cfg.Name, topic)
}

// Pause stops the mirroring of a topic of the source, or of a whole flow (empty
// topic), on all instances and until Resume, also over restarts: the order
// stands on the target cluster. What is in flight is finished. An unknown flow
// or topic is an error.
func (e *Engine) Pause(ctx context.Context, flow, topic string) error {
	f, err := e.find(flow, topic)
	if err != nil {
		return err
	}
	err = f.orders.give(ctx, map[orderKey]*orderValue{{Order: orderPause, Flow: flow, Topic: topic}: f.orders.order()})
	if err != nil {
		return fmt.Errorf("pause %s: %w", name(flow, topic), err)
	}
	return nil
}

// ResumeOptions say what is more to Resume than to lift a pause.
type ResumeOptions struct {
	Partition int32  // one partition; -1: all of the topic
	Accept    string // one of AcceptableKinds: a stop for this reason is accepted once
}

// AcceptableKinds are the kinds of incidents that an operator can accept, so
// that a partition that stopped goes on.
func AcceptableKinds() []string {
	return []string{
		KindRetentionLoss, KindSourceTruncated, KindSourceRecreated, KindTargetDeleted, KindTargetTruncated,
		KindForeignWrite, KindFenceLost, KindSeamMismatch, KindSeamUnverified, KindPositionDoubt,
		KindTakeoverUnproven, KindUnlistedCircle,
	}
}

// Resume lifts what Pause ordered and has partitions that wait or stopped look
// again at once, on whichever instance has them. With Accept a stop for that
// reason is no reason to stop, once, within the next ten minutes; that needs a
// topic. What mirror.yaml pauses, mirror.yaml resumes: that is an error.
func (e *Engine) Resume(ctx context.Context, flow, topic string, o ResumeOptions) error {
	f, err := e.find(flow, topic)
	if err != nil {
		return err
	}
	switch {
	case o.Accept != "" && topic == "":
		return fmt.Errorf("accept %s: for which topic of %s?", o.Accept, flow)
	case o.Accept != "" && !slices.Contains(AcceptableKinds(), o.Accept):
		return fmt.Errorf("accept %s: nothing that a partition stops for and can be accepted; there are %s", o.Accept, strings.Join(AcceptableKinds(), ", "))
	case f.cfg().Paused(topic) && topic != "", f.cfg().Pause && topic == "":
		return fmt.Errorf("resume %s: it is paused in mirror.yaml; set paused: false there and reload", name(flow, topic))
	case topic != "" && f.orders.paused(flow, "") != "":
		return fmt.Errorf("resume %s: the whole flow is paused; resume %s", name(flow, topic), flow)
	}
	orders, back := map[orderKey]*orderValue{}, map[orderKey]*orderValue{}
	if f.orders.paused(flow, topic) != "" {
		orders[orderKey{Order: orderPause, Flow: flow, Topic: topic}] = nil
	}
	if w := f.discovery.current.Load(); w != nil {
		for _, pair := range w.topics {
			if topic != "" && pair.source.Name != topic {
				continue
			}
			for n := range pair.source.Partitions {
				if o.Partition >= 0 && topic != "" && int32(n) != o.Partition {
					continue
				}
				key := orderKey{Order: orderGo, Flow: flow, Topic: pair.source.Name, Partition: int32(n), Accept: o.Accept}
				orders[key] = f.orders.order()
				if o.Accept == "" { // a signal, not a state
					back[key] = nil
				}
			}
		}
	}
	for _, some := range []map[orderKey]*orderValue{orders, back} {
		if len(some) == 0 {
			continue
		}
		if err := f.orders.give(ctx, some); err != nil {
			return fmt.Errorf("resume %s: %w", name(flow, topic), err)
		}
	}
	return nil
}

// find returns a running flow; topic, if not empty, must be one that it mirrors.
func (e *Engine) find(flow, topic string) (*flow, error) {
	if e.config().Flow(flow) == nil {
		return nil, fmt.Errorf("there is no flow %s", flow)
	}
	e.mu.Lock()
	l := e.life
	e.mu.Unlock()
	if l != nil {
		if f := l.flowNamed(flow); f != nil {
			if topic != "" && !f.cfg().Selects(topic) {
				return nil, fmt.Errorf("flow %s does not mirror topic %s: %s", flow, topic, f.cfg().Selection(topic))
			}
			return f, nil
		}
	}
	return nil, fmt.Errorf("flow %s does not run: this instance is not a member at present", flow)
}

func name(flow, topic string) string {
	if topic == "" {
		return "flow " + flow
	}
	return "topic " + topic + " of " + flow
}
