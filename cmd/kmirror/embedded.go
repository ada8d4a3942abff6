package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"kmirror/broker"
	"kmirror/broker/storage"
	"kmirror/topology"
)

// embeddedCluster is the nodes of one embedded cluster in this process.
type embeddedCluster struct {
	name  string
	nodes []*broker.Node
}

// forgotten finds clusters in the data directory that the configuration does not
// name. A cluster that was renamed there begins empty under its new name, which
// is seldom what was meant.
func (d *daemon) forgotten() []string {
	var names []string
	homes, _ := filepath.Glob(d.data.join("*", "node-*", "meta.properties")) // it fails on bad patterns only
	for _, home := range homes {
		name := filepath.Base(filepath.Dir(filepath.Dir(home)))
		if c := d.cfg.Cluster(name); c == nil || c.Embedded == nil {
			names = append(names, name)
		}
	}
	return names
}

// openEmbedded opens all embedded clusters at the same time; none stays open if one fails.
func (d *daemon) openEmbedded() ([]*embeddedCluster, error) {
	var clusters []*embeddedCluster
	var opening errgroup.Group
	for _, t := range d.cfg.Clusters {
		if t.Embedded == nil {
			continue
		}
		c := &embeddedCluster{name: t.Name, nodes: make([]*broker.Node, len(t.Embedded.Nodes))}
		clusters = append(clusters, c)
		for i := range t.Embedded.Nodes {
			opening.Go(func() (err error) {
				c.nodes[i], err = d.openNode(t, i)
				return err
			})
		}
	}
	if err := opening.Wait(); err != nil {
		for _, c := range clusters {
			err = errors.Join(err, c.close())
		}
		return nil, err
	}
	for _, name := range d.forgotten() {
		d.logger.Warn("the data directory holds a cluster that the configuration does not name; if it was renamed, rename it back", slog.String("cluster", name), slog.String("dir", d.data.join(name)))
	}
	return clusters, nil
}

func (d *daemon) openNode(t *topology.Cluster, i int) (*broker.Node, error) {
	id := i + 1
	fsync := map[string]storage.Fsync{topology.FsyncBatch: storage.FsyncBatch, topology.FsyncInterval: storage.FsyncInterval, topology.FsyncNever: storage.FsyncNever}
	cfg := broker.Config{
		Cluster: t.Name, NodeID: int32(id), Listen: t.Embedded.Nodes[i], DataDir: d.data.join(t.Name, "node-"+strconv.Itoa(id)),
		Fsync: fsync[t.Embedded.Fsync], FsyncInterval: t.Embedded.FsyncInterval, Settings: t.Embedded.Settings,
		Logger:     d.logger.With(slog.String("cluster", t.Name), slog.Int("node", id)),
		Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"cluster": t.Name, "node": strconv.Itoa(id)}, d.registry),
		Version:    d.version,
	}
	if len(t.Embedded.Advertised) > i {
		cfg.Advertised = t.Embedded.Advertised[i]
	}
	node, err := broker.Open(cfg)
	switch {
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, explainListen("cluster "+t.Name, cfg.Listen, err)
	case err != nil:
		return nil, fmt.Errorf("cluster %s: %w", t.Name, err)
	}
	return node, nil
}

// run serves until ctx ends or a node fails.
func (c *embeddedCluster) run(ctx context.Context) error {
	running, ctx := errgroup.WithContext(ctx)
	for _, node := range c.nodes {
		running.Go(func() error { return node.Run(ctx) })
	}
	if err := running.Wait(); err != nil {
		return fmt.Errorf("cluster %s: %w", c.name, err)
	}
	return nil
}

// close gives listeners and directories back.
func (c *embeddedCluster) close() error {
	var faults []error
	for _, node := range c.nodes {
		if node != nil {
			faults = append(faults, node.Close())
		}
	}
	return errors.Join(faults...)
}
