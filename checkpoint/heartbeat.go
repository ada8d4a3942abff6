package checkpoint

import (
	"context"
	"log/slog"
	"time"

	"kmirror/internal/wire"
	"kmirror/topology"
)

// HeartbeatEvery is the pause between two heartbeats, MirrorMaker 2's default.
const HeartbeatEvery = time.Second

// Heartbeater writes MirrorMaker 2's heartbeats of one flow to its target.
type Heartbeater struct {
	flow   *topology.Flow
	target HeartbeatCluster
	log    *slog.Logger
}

// HeartbeatCluster is what a Heartbeater asks of the target.
type HeartbeatCluster interface {
	Appender
	TopicMaker
}

// NewHeartbeater makes a heartbeater; Run starts it.
func NewHeartbeater(flow *topology.Flow, target HeartbeatCluster, log *slog.Logger) *Heartbeater {
	return &Heartbeater{flow: flow, target: target, log: log}
}

// Run writes a heartbeat every second until ctx ends, and returns nil. What
// fails is tried again.
func (h *Heartbeater) Run(ctx context.Context) error {
	again := retry{log: h.log, what: "write heartbeats"}
	topic := newInternalTopic(topology.HeartbeatsTopic, h.target, compacted(), h.log)
	tick := time.NewTicker(HeartbeatEvery)
	defer tick.Stop()
	for {
		err := topic.ensure(ctx)
		if err == nil {
			beat := Heartbeat{Source: h.flow.From, Target: h.flow.To, Millis: time.Now().UnixMilli()}
			_, err = h.target.Append(ctx, topology.HeartbeatsTopic, 0, []wire.Record{EncodeHeartbeat(beat)})
		}
		switch {
		case err == nil:
			again.success()
		case ctx.Err() == nil:
			topic.lost()
			again.failure(ctx, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
