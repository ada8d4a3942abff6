package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"kmirror/internal/console"
	"kmirror/internal/kafka"
	"kmirror/mirror"
	"kmirror/topology"
	"kmirror/topology/consul"
)

// How long a part may take to stop before the next is stopped all the same.
const (
	engineGrace  = 20 * time.Second
	consoleGrace = 5 * time.Second
	brokerGrace  = 30 * time.Second
)

// consoleAddressFile holds, in the data directory, where the page is served:
// the commands read it when the configuration leaves the port open.
const consoleAddressFile = "http.address"

// daemon is what `kmirror run` builds and joins.
//
// The order: data directory, page's address, embedded clusters, then the page,
// the connections, and last the engine, which needs all of them. It stops the
// other way round: the engine drains into clusters that still answer, the page
// shows it until the end, and the clusters go last.
type daemon struct {
	app      *app
	options  runOptions
	cfg      *topology.Config
	logger   *slog.Logger
	file     *configFile
	version  string
	registry *prometheus.Registry
	data     *dataDir
	page     net.Listener
}

func (d *daemon) run(ctx context.Context) (err error) {
	hangups := make(chan os.Signal, 1) // from the first moment on: unheard, a SIGHUP would end the process
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	if d.data, err = openDataDir(d.cfg.DataDir); err != nil {
		return err
	}
	defer d.data.close()
	if d.page, err = listen(ctx, "http", d.cfg.HTTP); err != nil {
		return err
	}
	defer func() { _ = d.page.Close() }() // the console closes it when it stops; this is for a start that fails
	if err := replaceFile(d.data.join(consoleAddressFile), []byte(d.page.Addr().String()+"\n")); err != nil {
		return err
	}
	d.registry = d.newRegistry()

	parts := newSupervisor(d.logger)
	clusters, err := d.openEmbedded() //nolint:contextcheck // opening is no long work; a node's life is its Run
	if err != nil {
		return err
	}
	for _, c := range clusters {
		defer func() {
			if closeErr := c.close(); closeErr != nil && err == nil {
				err = fmt.Errorf("close cluster %s: %w", c.name, closeErr)
			}
		}()
		parts.start(ctx, "cluster "+c.name, brokerGrace, c.run)
	}
	// From here on something runs: every way out leads through parts.stop.
	fail := func(err error) error { return parts.stop(err) }
	if d.options.pprof != "" {
		profiles, err := listen(ctx, "--pprof", d.options.pprof)
		if err != nil {
			return fail(err)
		}
		parts.start(ctx, "profiles", time.Second, func(ctx context.Context) error { return serveProfiles(ctx, profiles) })
	}
	connections, err := d.connect()
	defer func() {
		for _, c := range connections {
			err = errors.Join(err, c.Close())
		}
	}()
	if err != nil {
		return fail(err)
	}
	engine, err := d.newEngine(connections)
	if err != nil {
		return fail(err)
	}
	d.file.engine = engine
	window, err := console.New(console.Options{Engine: engine, Steering: engine, Config: d.file, Gatherer: d.registry, Logger: d.logger})
	if err != nil {
		return fail(err)
	}
	parts.start(ctx, "http", consoleGrace, func(ctx context.Context) error { return window.Run(ctx, d.page) })
	who := &identities{cfg: d.cfg, clusters: connections, logger: d.logger, ids: map[string]string{}}
	for _, c := range clusters {
		who.ids[c.name] = c.nodes[0].ClusterID()
	}
	if _, err := who.ask(ctx, d.patience()); err != nil {
		return fail(err)
	}
	parts.start(ctx, "cluster ids", time.Second, who.watch)
	parts.start(ctx, "engine", engineGrace, engine.Run)
	parts.start(ctx, "reload", consoleGrace, func(ctx context.Context) error { return d.file.watch(ctx, hangups) })
	parts.start(ctx, "greeting", time.Second, func(ctx context.Context) error { return d.greet(ctx, engine) })
	if err := parts.wait(ctx); err != nil {
		return err
	}
	d.logger.Info("stopped")
	return nil
}

// patience is how long the start waits for the ids of clusters elsewhere.
func (d *daemon) patience() time.Duration { return min(3*time.Second, d.app.timeout) }

func (d *daemon) newRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kmirror_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": d.version, "instance_name": d.cfg.Instance},
	})
	build.Set(1)
	registry.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// connect makes the connections to all clusters; it does no I/O.
func (d *daemon) connect() (map[string]*kafka.Cluster, error) {
	connections := map[string]*kafka.Cluster{}
	for _, t := range d.cfg.Clusters {
		c, err := kafka.New(t, kafka.Options{ClientID: t.ClientID, Logger: d.logger.With(slog.String("cluster", t.Name))})
		if err != nil {
			return connections, withCode(exitUsage, fmt.Errorf("cluster %s: %w", t.Name, err))
		}
		connections[t.Name] = c
	}
	return connections, nil
}

func (d *daemon) newEngine(connections map[string]*kafka.Cluster) (*mirror.Engine, error) {
	live, err := d.newLive()
	if err != nil {
		return nil, err
	}
	return mirror.New(mirror.Options{
		Topology: d.cfg, Clusters: connections, Live: live, Logger: d.logger, Registerer: d.registry, Budget: d.cfg.Buffer, Version: d.version,
	})
}

func (d *daemon) newLive() (mirror.Live, error) {
	c := d.cfg.Coordination.Consul
	if c == nil {
		return consul.NewLocal(d.cfg.Instance), nil
	}
	return consul.New(d.consulConfig(c))
}
