package main

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"kmirror/internal/kafka"
	"kmirror/topology"
)

// identities learns the cluster id behind every name, so that two names of one
// cluster are found before a flow copies topics onto themselves.
type identities struct {
	cfg      *topology.Config
	clusters map[string]*kafka.Cluster
	logger   *slog.Logger

	mu  sync.Mutex        // guards ids
	ids map[string]string // by name, of those known
}

// ask asks the clusters that are not known yet, all at the same time, for at
// most patience each. The error is what CheckClusterIDs says.
func (i *identities) ask(ctx context.Context, patience time.Duration) (complete bool, err error) {
	i.mu.Lock()
	ids := maps.Clone(i.ids)
	i.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var wait sync.WaitGroup
	for name, cluster := range i.clusters {
		if ids[name] != "" {
			continue
		}
		wait.Go(func() {
			metadata, err := cluster.Metadata(ctx, topology.HeartbeatsTopic) // one name: we ask for the id, not for ten thousand topics
			if err != nil {
				i.logger.Debug("cluster id not known yet", slog.String("cluster", name), slog.Any("error", err))
				return
			}
			i.mu.Lock()
			defer i.mu.Unlock()
			i.ids[name] = metadata.ClusterID
		})
	}
	wait.Wait()
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.ids) == len(i.clusters), i.cfg.CheckClusterIDs(i.ids)
}

// watch goes on asking until all are known, or two are found to be one.
func (i *identities) watch(ctx context.Context) error {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		complete, err := i.ask(ctx, 10*time.Second)
		if err != nil {
			return err
		}
		if complete {
			<-ctx.Done()
			return ctx.Err()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
