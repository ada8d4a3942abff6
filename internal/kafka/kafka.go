// Package kafka is one Kafka cluster as a client sees it.
//
// A [Cluster] knows its brokers, finds the leader of a partition and the
// coordinator of a group, follows them when they move, and holds the
// connections for all that. Control goes through sarama ([Cluster.Admin],
// [Cluster.Client]), data and whatever sarama cannot say goes through wire
// connections; both use one TLS and SASL configuration, made here.
//
// Its promises:
//
//   - Nothing here creates a topic unless asked to by name: metadata requests
//     forbid it, in sarama's configuration too.
//   - Every error names the operation, the cluster and the object. A cluster
//     that cannot be reached lists the addresses tried and why each failed
//     (*[UnreachableError]).
//   - What is retried is said at each method: a leader or coordinator that
//     moved, a connection that broke. Other answers of a broker come back as
//     *kerr.Error, reachable by errors.Is and errors.As.
//   - Secrets are in no error and no log.
//
// The package knows no flows and stores nothing. Lock order: Cluster before pool;
// saramaClients nests with neither. No mutex is held over I/O or a callback.
package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"kmirror/internal/wire"
	"kmirror/topology"
)

// Options are what a Cluster needs beside its place in the topology.
type Options struct {
	ClientID string       // used where the topology names none
	Logger   *slog.Logger // nil: discard
	// Dial opens transports, for wire connections and sarama; nil: a net.Dialer
	// that gives up after ten seconds.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// RequestTimeout is how long a broker may leave a request unanswered before
	// its connection is given up; 0: 30 s.
	RequestTimeout time.Duration
	// InflateLimit bounds in bytes what one batch may hold uncompressed when it
	// is read here; 0: 128 MiB.
	InflateLimit int
}

// Cluster is one Kafka cluster. All methods are safe for concurrent use.
type Cluster struct {
	topology *topology.Cluster // these are constant after New
	options  Options
	log      *slog.Logger
	security *security
	pool     *pool
	sarama   *saramaClients

	mu           sync.Mutex // guards the fields below
	brokers      map[int32]string
	controller   int32
	clusterID    string
	topics       map[string]*Topic // as last seen
	coordinators map[coordinatorKey]int32
	next         int // rotates over the brokers
}

const (
	dialTimeout         = 10 * time.Second
	defaultInflateLimit = 128 << 20
)

// New returns the client of a cluster. It does no I/O; an error means that the
// topology names something that cannot be, such as an unknown SASL mechanism.
func New(t *topology.Cluster, o Options) (*Cluster, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	if o.InflateLimit <= 0 {
		o.InflateLimit = defaultInflateLimit
	}
	if o.RequestTimeout <= 0 {
		o.RequestTimeout = wire.DefaultRequestTimeout
	}
	if t.ClientID != "" {
		o.ClientID = t.ClientID
	}
	if len(t.Addresses()) == 0 {
		return nil, fmt.Errorf("cluster %s: no address", t.Name)
	}
	s, err := newSecurity(t)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", t.Name, err)
	}
	c := &Cluster{
		topology:     t,
		options:      o,
		log:          o.Logger.With(slog.String("cluster", t.Name)),
		security:     s,
		controller:   -1,
		brokers:      make(map[int32]string),
		topics:       make(map[string]*Topic),
		coordinators: make(map[coordinatorKey]int32),
	}
	c.pool = newPool(c.dial)
	c.sarama = newSaramaClients(c)
	return c, nil
}

// Name is the cluster's name in the topology.
func (c *Cluster) Name() string { return c.topology.Name }

// Close closes all connections but those from Connect, and the sarama clients.
// Requests under way fail. The error is always nil.
func (c *Cluster) Close() error {
	c.sarama.close()
	c.pool.close()
	return nil
}

// errorf wraps err with the cluster and the operation.
func (c *Cluster) errorf(err error, operation string, args ...any) error {
	return fmt.Errorf("cluster %s: %s: %w", c.Name(), fmt.Sprintf(operation, args...), err)
}

// Connect opens a connection of its own to a broker, which the caller closes.
// The broker's address is the one last seen, or a fresh one when there is none.
func (c *Cluster) Connect(ctx context.Context, broker int32) (*wire.Conn, error) {
	addr, err := c.brokerAddress(ctx, broker)
	if err != nil {
		return nil, c.errorf(err, "connect to broker %d", broker)
	}
	conn, _, err := c.dial(ctx, addr)
	if err != nil {
		return nil, c.errorf(err, "connect to broker %d", broker)
	}
	return conn, nil
}

// dial opens a connection to addr. The time is when the broker ends its SASL
// session; zero: never.
func (c *Cluster) dial(ctx context.Context, addr string) (*wire.Conn, time.Time, error) {
	config, err := c.security.tlsConfig()
	if err != nil {
		return nil, time.Time{}, err
	}
	d := wire.Dialer{
		ClientID:       c.options.ClientID,
		Dial:           c.options.Dial,
		TLS:            config,
		RequestTimeout: c.options.RequestTimeout,
	}
	var until time.Time
	if c.topology.SASL != nil {
		d.Authenticate = func(ctx context.Context, conn *wire.Conn) error {
			lifetime, err := c.security.authenticate(ctx, conn)
			if lifetime > 0 {
				until = time.Now().Add(lifetime)
			}
			return err
		}
	}
	conn, err := d.Connect(ctx, addr)
	return conn, until, err
}
