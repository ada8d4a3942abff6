package kafka

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

// Sarama returns a new sarama configuration for this cluster: its TLS and SASL,
// its dialer, no creation of topics by metadata requests, acknowledgement by
// all replicas. The caller may change what is left.
func (c *Cluster) Sarama() (*sarama.Config, error) {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion // what each broker offers is negotiated below that
	config.ClientID = c.options.ClientID
	config.Net.DialTimeout = dialTimeout
	config.Net.ReadTimeout = c.options.RequestTimeout
	config.Net.WriteTimeout = c.options.RequestTimeout
	config.Metadata.AllowAutoTopicCreation = false
	config.Metadata.Retry.Max = 2
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Consumer.Return.Errors = true
	config.Net.Proxy.Enable = true
	config.Net.Proxy.Dialer = saramaDialer(func(network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(c.sarama.lifetime(), dialTimeout)
		defer cancel()
		return c.options.Dial(ctx, network, addr)
	})
	if err := c.security.applyTo(config); err != nil {
		return nil, c.errorf(err, "configure sarama")
	}
	if err := config.Validate(); err != nil {
		return nil, c.errorf(err, "configure sarama")
	}
	return config, nil
}

// saramaDialer is a dialer as sarama takes it.
type saramaDialer func(network, addr string) (net.Conn, error)

// Dial opens a transport.
func (d saramaDialer) Dial(network, addr string) (net.Conn, error) { return d(network, addr) }

// Client returns the shared sarama client, opened at the first call and again
// when it was closed. It must not be closed by the caller. When ctx ends first,
// the opening goes on for the next caller.
func (c *Cluster) Client(ctx context.Context) (sarama.Client, error) {
	client, _, err := c.sarama.get(ctx)
	if err != nil {
		return nil, err
	}
	return client, nil
}

// Admin returns the shared sarama administrator over [Cluster.Client]. It must
// not be closed by the caller. sarama's own calls know no context: they end
// after the request timeout and a few retries.
func (c *Cluster) Admin(ctx context.Context) (sarama.ClusterAdmin, error) {
	_, admin, err := c.sarama.get(ctx)
	if err != nil {
		return nil, err
	}
	return admin, nil
}

// saramaClients holds the shared sarama client of a cluster.
type saramaClients struct {
	cluster *Cluster
	opening chan struct{} // capacity 1: one client is opened at a time
	closing chan struct{} // closed by close
	openers sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	closed bool
	client sarama.Client
	admin  sarama.ClusterAdmin
}

func newSaramaClients(c *Cluster) *saramaClients {
	return &saramaClients{cluster: c, opening: make(chan struct{}, 1), closing: make(chan struct{})}
}

// lifetime ends with the cluster's Close, so that a dial does not outlive it.
func (s *saramaClients) lifetime() context.Context { return closeContext(s.closing) }

func (s *saramaClients) get(ctx context.Context) (sarama.Client, sarama.ClusterAdmin, error) {
	if client, admin, err := s.current(); client != nil || err != nil {
		return client, admin, err
	}
	// sarama says only that it ran out of brokers; this says why.
	if _, err := s.cluster.fetchMetadata(ctx, nil, false); err != nil {
		return nil, nil, s.cluster.errorf(err, "open sarama client")
	}
	select {
	case s.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, s.cluster.errorf(context.Cause(ctx), "open sarama client")
	}
	if client, admin, err := s.current(); client != nil || err != nil {
		<-s.opening
		return client, admin, err
	}
	opened := make(chan error, 1)
	if !s.begin() {
		<-s.opening
		return nil, nil, s.cluster.errorf(errPoolClosed, "open sarama client")
	}
	go func() { //nolint:contextcheck // sarama knows none; its dials end with the cluster's Close
		defer s.openers.Done()
		defer func() { <-s.opening }()
		opened <- s.open()
	}()
	select {
	case err := <-opened:
		if err != nil {
			return nil, nil, s.cluster.errorf(err, "open sarama client")
		}
		client, admin, err := s.current()
		if client == nil && err == nil {
			err = s.cluster.errorf(sarama.ErrClosedClient, "open sarama client")
		}
		return client, admin, err
	case <-ctx.Done():
		return nil, nil, s.cluster.errorf(context.Cause(ctx), "open sarama client")
	}
}

// begin counts an opener in; false after close.
func (s *saramaClients) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.openers.Add(1)
	}
	return !s.closed
}

// current is the open client, nil when there is none.
func (s *saramaClients) current() (sarama.Client, sarama.ClusterAdmin, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, nil, s.cluster.errorf(errPoolClosed, "use sarama client")
	case s.client == nil || s.client.Closed():
		return nil, nil, nil
	}
	return s.client, s.admin, nil
}

func (s *saramaClients) open() error {
	config, err := s.cluster.Sarama()
	if err != nil {
		return err
	}
	client, err := sarama.NewClient(s.cluster.topology.Addresses(), config)
	if err != nil {
		return err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client, s.admin = client, admin
	return nil
}

func (s *saramaClients) close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	s.openers.Wait()
	s.mu.Lock()
	admin := s.admin
	s.client, s.admin = nil, nil
	s.mu.Unlock()
	if admin != nil {
		if err := admin.Close(); err != nil && !errors.Is(err, sarama.ErrClosedClient) {
			s.cluster.log.Debug("sarama client closed with an error", slog.Any("error", err))
		}
	}
}

// closeContext is a context that ends when its channel is closed.
type closeContext <-chan struct{}

// Deadline is none.
func (closeContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done is the channel.
func (c closeContext) Done() <-chan struct{} { return c }

// Err is context.Canceled once the channel is closed.
func (c closeContext) Err() error {
	select {
	case <-c:
		return context.Canceled
	default:
		return nil
	}
}

// Value is none.
func (closeContext) Value(any) any { return nil }
