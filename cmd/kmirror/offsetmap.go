package main

import (
	"context"
	"fmt"
	"log/slog"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// bridge is two clusters and the flows between them. It connects to a cluster, and
// reads its offset map, when that is needed for the first time.
type bridge struct {
	app               *app
	cfg               *topology.Config
	from, to          string
	forward, opposite *topology.Flow // from -> to and to -> from; nil: there is none

	ctx      context.Context //nolint:containedctx // of the maps, which live as long as the bridge
	stop     context.CancelFunc
	clusters map[string]*remote
	metadata map[string]*kafka.Metadata
	maps     map[string]*checkpoint.Index // by target; nil: nothing was ever mirrored into it
}

func (a *app) openBridge(ctx context.Context, from, to string) (*bridge, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{from, to} {
		if _, err := findCluster(cfg, name); err != nil {
			return nil, err
		}
	}
	return a.bridge(ctx, cfg, from, to)
}

func (a *app) bridge(ctx context.Context, cfg *topology.Config, from, to string) (*bridge, error) {
	b := &bridge{
		app: a, cfg: cfg, from: from, to: to, forward: cfg.Flow(from + "->" + to), opposite: cfg.Flow(to + "->" + from),
		clusters: map[string]*remote{}, metadata: map[string]*kafka.Metadata{}, maps: map[string]*checkpoint.Index{},
	}
	if b.forward == nil && b.opposite == nil {
		return nil, withCode(exitNotFound, fmt.Errorf("no flow between %s and %s in %s: there are %v", from, to, cfg.Path, flowNames(cfg)))
	}
	b.ctx, b.stop = context.WithCancel(ctx)
	return b, nil
}

func (b *bridge) close() {
	b.stop()
	for _, cluster := range b.clusters {
		cluster.close()
	}
}

// remote connects to one of the two clusters, once.
func (b *bridge) remote(ctx context.Context, name string) (*remote, *kafka.Metadata, error) {
	if cluster := b.clusters[name]; cluster != nil {
		return cluster, b.metadata[name], nil
	}
	cluster, metadata, err := b.app.connect(ctx, b.cfg.Cluster(name))
	if err != nil {
		return nil, nil, err
	}
	b.clusters[name], b.metadata[name] = cluster, metadata
	return cluster, metadata, nil
}

// mapOf is the offset map of a target, nil if nothing was ever mirrored into it.
func (b *bridge) mapOf(ctx context.Context, target string) (*checkpoint.Index, error) {
	if index, read := b.maps[target]; read {
		return index, nil
	}
	cluster, metadata, err := b.remote(ctx, target)
	if err != nil {
		return nil, err
	}
	var index *checkpoint.Index
	if metadata.Topics[checkpoint.MapTopic] != nil {
		if index, err = b.app.loadIndex(b.ctx, cluster); err != nil { //nolint:contextcheck // it follows the map for as long as the bridge stands
			return nil, err
		}
	}
	b.maps[target] = index
	return index, nil
}

// route is a flow with its offset map; without a flow, an empty route.
func (b *bridge) route(ctx context.Context, flow *topology.Flow) (checkpoint.Route, error) {
	if flow == nil {
		return checkpoint.Route{}, nil
	}
	index, err := b.mapOf(ctx, flow.To)
	if err == nil && index == nil {
		err = mapMissing(flow.To)
	}
	return checkpoint.Route{Flow: flow, Maps: index}, err
}

// way is how one topic of FROM gets to TO: along the flow, or against it. The
// maps that are not needed for that are not read.
type way struct {
	routes  checkpoint.Routes
	source  string // the topic, as the source of the routes' forward flow calls it
	against bool   // we come from the target of that flow
	other   string // what the topic is called in TO
}

// way finds it; it is not ok for a topic that neither flow mirrors.
func (b *bridge) way(ctx context.Context, topic string) (w way, ok bool, err error) {
	along := checkpoint.Routes{Forward: checkpoint.Route{Flow: b.forward}, Opposite: checkpoint.Route{Flow: b.opposite}}
	against := checkpoint.Routes{Forward: along.Opposite, Opposite: along.Forward}
	if b.forward != nil {
		if w.other, ok = along.Pair(topic); ok {
			w.routes, w.source = along, topic
		}
	}
	if !ok && b.opposite != nil {
		if w.source, ok = against.Source(topic); ok {
			w.routes, w.other, w.against = against, w.source, true
		}
	}
	if !ok {
		return w, false, nil
	}
	shared := w.routes.Shared(w.source)
	if w.routes.Forward, err = b.route(ctx, w.routes.Forward.Flow); err == nil && shared {
		w.routes.Opposite, err = b.route(ctx, w.routes.Opposite.Flow)
	}
	return w, true, err
}

// translate is where an offset of the topic is in TO. It is not ok when nothing
// of the partition is mirrored.
func (w way) translate(partition int32, offset int64) (checkpoint.Translation, bool) {
	if w.against {
		return w.routes.ToSource(w.source, partition, offset)
	}
	return w.routes.ToTarget(w.source, partition, offset)
}

// loadIndex reads the offset map of a target cluster. The index lives until ctx ends.
func (a *app) loadIndex(ctx context.Context, target *remote) (*checkpoint.Index, error) {
	index := checkpoint.NewIndex(target.Cluster, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- index.Run(ctx) }()
	select {
	case <-index.Ready():
		return index, nil
	case err := <-done:
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("read the offset map of %s: %w", target.Name(), err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// mapMissing tells whether nothing was ever mirrored into a cluster, and in which words.
func mapMissing(cluster string) error {
	return withCode(exitNotFound, fmt.Errorf("nothing was mirrored into %s yet: it has no topic %s; flows run with `kmirror run`", cluster, checkpoint.MapTopic))
}
