// Package broker is an embedded node that speaks the Kafka protocol. Clients
// and tools cannot tell it from Apache Kafka for what it offers; what it does
// not offer (KIP-848 groups, TLS, SASL) it does not advertise.
//
// It keeps three promises. A batch that was acknowledged has been fsynced,
// unless the configuration says otherwise. Requests of one connection are
// served in order, and so are their responses. Nothing that a client sends makes
// the process allocate without bound or costs more than that client's own
// connection.
//
// It owns the listener, the connections and the API keys, one file for each.
// What a log is belongs to broker/storage, what exists to broker/replica, who
// consumes and which transactions there are to broker/coordinator; the handlers here translate between those and
// the wire. Kafka's error codes are data in a response, a Go error ends a
// connection.
//
// Lock order: a connection holds no lock of this package while it calls into
// another. sessionCache.mu and Node.mu are leaves.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"kmirror/broker/coordinator"
	"kmirror/broker/replica"
	"kmirror/broker/storage"
)

// Config says what a node is. Cluster, Listen and DataDir are required.
type Config struct {
	Cluster    string // name in mirror.yaml; the data directory remembers it
	NodeID     int32
	Listen     string // host:port; port 0 takes a free one
	Advertised string // host:port that clients are told; default: what was bound
	DataDir    string

	Fsync         storage.Fsync
	FsyncInterval time.Duration     // with storage.FsyncInterval; default 1 s
	Settings      map[string]string // broker configurations by Kafka's names

	Logger     *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
	Limits     Limits
	Version    string // of the program, told in the log
}

// Limits bound what clients can make a node hold. Zero fields take defaults.
type Limits struct {
	Connections   int   // open at once, default 10 000 or max.connections
	RequestBytes  int32 // one request, default socket.request.max.bytes (100 MiB)
	InFlightBytes int64 // requests read and not yet served, over all connections, default 128 MiB; readers wait
	InflateBytes  int   // what one compressed batch may unpack to while it is validated, default 256 MiB
	FetchBytes    int32 // one fetch response, default fetch.max.bytes (55 MiB)
	Sessions      int   // partitions in all incremental fetch sessions, default 1 000 000
}

const (
	defaultConnections = 10_000
	defaultInFlight    = 128 << 20
	defaultInflate     = 256 << 20
	defaultSessions    = 1_000_000
)

// withDefaults fills zero fields, from Kafka's settings where it has one.
func (l Limits) withDefaults(s settings) Limits {
	if l.Connections <= 0 {
		l.Connections = s.maxConnections
	}
	if l.RequestBytes <= 0 {
		l.RequestBytes = s.requestBytes
	}
	if l.InFlightBytes <= 0 {
		l.InFlightBytes = defaultInFlight
	}
	if l.InflateBytes <= 0 {
		l.InflateBytes = defaultInflate
	}
	if l.FetchBytes <= 0 {
		l.FetchBytes = s.fetchBytes
	}
	if l.Sessions <= 0 {
		l.Sessions = defaultSessions
	}
	return l
}

// Node is one broker. Its methods may be called concurrently.
type Node struct {
	id           int32
	host         string // advertised
	port         int32
	clusterID    string
	dir          string
	logger       *slog.Logger
	static       map[string]string // broker configurations of Config
	settings     settings
	limits       Limits
	metrics      *metrics
	complaints   complaints
	softwareName *regexp.Regexp

	listener     net.Listener
	store        *storage.Store
	controller   *replica.Controller
	groups       *coordinator.Coordinator
	transactions *coordinator.Transactions
	sessions     *sessionCache
	buffers      buffers
	producers    producerIDs
	budget       *semaphore.Weighted // bytes of requests in flight
	decoding     *semaphore.Weighted // see decodeBytes
	apis         [highestKey + 1]*api
	draining     atomic.Bool

	mu     sync.Mutex // guards the fields below
	conns  map[*conn]struct{}
	cancel context.CancelFunc // ends Run, nil while it does not run
	ran    chan struct{}      // closed when Run has returned
	closed bool
}

// Open opens the data directory and binds the listener. Clients may connect
// from then on; they are served once Run is called. Errors name the address or
// directory and what to do.
func Open(cfg Config) (*Node, error) {
	logger := cfg.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	n := &Node{
		id: cfg.NodeID, dir: cfg.DataDir, logger: logger,
		softwareName: softwareNamePattern(),
		conns:        make(map[*conn]struct{}),
	}
	ctx := context.Background() //nolint:forbidigo // what Open does is short, and not to be left half-way
	if err := n.open(ctx, cfg); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	n.logger.Info("node is open", slog.String("address", n.Addr()), slog.String("cluster_id", n.clusterID),
		slog.String("dir", n.dir), slog.String("version", cfg.Version))
	return n, nil
}

// open takes address and directory; what it took before an error is Close's.
func (n *Node) open(ctx context.Context, cfg Config) (err error) {
	if n.listener, err = listen(ctx, cfg.Listen); err != nil {
		return err
	}
	if err := n.advertise(cfg.Advertised); err != nil {
		return err
	}
	if err := n.openMetadata(ctx, cfg); err != nil {
		return err
	}
	n.limits = cfg.Limits.withDefaults(n.settings)
	n.budget = semaphore.NewWeighted(n.limits.InFlightBytes)
	n.decoding = semaphore.NewWeighted(decodeBytes)
	n.sessions = newSessionCache(n.settings.sessionSlots, n.limits.Sessions)
	if n.metrics, err = newMetrics(cfg.Registerer, n.sessions.count); err != nil {
		return fmt.Errorf("register the metrics of node %d: %w", n.id, err)
	}
	n.openGroups()
	n.openTransactions()
	n.loadTable()
	return nil
}

// advertise settles the address that clients are told.
func (n *Node) advertise(address string) error {
	bound, ok := n.listener.Addr().(*net.TCPAddr)
	if !ok {
		return fmt.Errorf("listener on %s is not TCP", n.listener.Addr())
	}
	host, port := bound.IP.String(), bound.Port
	if bound.IP.IsUnspecified() {
		host = "localhost"
	}
	if address != "" {
		h, p, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("advertised address %q: %w", address, err)
		}
		number, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return fmt.Errorf("advertised address %q: the port is not a number: %w", address, err)
		}
		host = h
		if number != 0 {
			port = int(number)
		}
	}
	n.host, n.port = host, int32(port)
	return nil
}

// Addr is the address that clients are told, host:port.
func (n *Node) Addr() string { return net.JoinHostPort(n.host, strconv.Itoa(int(n.port))) }

// ClusterID is the id of the cluster, 22 characters of URL-safe base64.
func (n *Node) ClusterID() string { return n.clusterID }

// Run serves until ctx ends or a part of the node fails. It stops in the order
// of dependence: first clients, then transactions, groups, and the logs. When it returns,
// nothing it started still runs.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.mu.Lock()
	if n.closed || n.ran != nil {
		closed := n.closed
		n.mu.Unlock()
		if closed {
			return nil
		}
		return errors.New("run node: it runs already")
	}
	n.cancel, n.ran = cancel, make(chan struct{})
	defer close(n.ran)
	n.mu.Unlock()

	// Each part runs under a context of its own that outlives the parts above it.
	stores, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStore()
	groups, stopGroups := context.WithCancel(stores)
	defer stopGroups()
	transactions, stopTransactions := context.WithCancel(groups)
	defer stopTransactions()
	var g errgroup.Group
	part := func(name string, run func() error, below context.CancelFunc) {
		g.Go(func() error {
			defer cancel() // one part's end is everybody's
			defer below()
			if err := run(); err != nil {
				return fmt.Errorf("%s of node %d: %w", name, n.id, err)
			}
			return nil
		})
	}
	part("logs", func() error { return n.store.Run(stores) }, func() {})
	part("groups", func() error { return n.runGroups(groups) }, stopStore)
	part("transactions", func() error { return n.runTransactions(transactions) }, stopGroups)
	part("listener", func() error { return n.accept(ctx) }, stopTransactions)
	return g.Wait()
}

// Close ends Run if it runs, and gives listener, metrics and data directory
// back. It may be called more than once.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	cancel, ran := n.cancel, n.ran
	n.mu.Unlock()
	if cancel != nil {
		cancel()
		<-ran
	}
	var faults []error
	if n.listener != nil {
		if err := n.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			faults = append(faults, fmt.Errorf("close listener: %w", err))
		}
	}
	if n.metrics != nil {
		n.metrics.unregister()
	}
	return errors.Join(append(faults, n.closeMetadata())...)
}
