// Package consul is the live world: instances that find each other, one of them
// leading, each with its assignment, all of it in Consul; and an in-process twin
// for a single instance that needs no Consul.
//
// What it promises:
//
//   - A life is a Consul session. Its id is unique, its context ends when the
//     session is gone or when it can no longer be proved: a renewal counts from
//     the moment it was sent, by this process's monotonic clock, so a life has
//     always ended here before Consul gives its place to others. Only a session
//     that somebody destroys ends sooner there; it is noticed at once.
//   - A term is the lock on one key. Its fence is the ModifyIndex of the very
//     transaction that took the lock; it grows as long as Consul keeps its state
//     (LockIndex would not: it starts again with the key). Everything a term
//     publishes is checked against it in the same transaction.
//   - Consul away is not an end: calls are repeated until their context ends, and
//     the life goes on until its deadline. A Consul that lost its state, or whose
//     index went back, is joined again.
//   - Values may be large: they are compressed, and cut into pieces where Consul
//     would refuse them (512 KiB). A reader sees a whole value or none.
//
// Keys, below the prefix:
//
//	leader                          held by the leading life's session, value: its id
//	live/members/INSTANCE/LIFE      held by the life's session, value: its info
//	live/held/INSTANCE/LIFE         held by the life's session, value: what it holds
//	assignments/INSTANCE/LIFE       written by terms
//	chunks/KIND/INSTANCE/LIFE/...   pieces of large values of the three above
//
// Sessions release their locks when they end, so a key of live/ without a session
// belongs to the dead; the leading life sweeps such keys after a while.
//
// Each life also registers a service with a TTL check that its session depends
// on, so that others see a dead instance after the TTL, not after twice the TTL
// as with a session alone; that remains when the instance dies with its agent.
//
// The package knows nothing of mirroring. It satisfies an interface that mirror
// declares, in standard types only.
package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Config says which Consul, and who we are in it.
type Config struct {
	Instance   string // name of this instance: letters, digits, dots, underscores, hyphens
	Address    string // host:port, http://, https:// or unix:// of one Consul agent
	Prefix     string // of all keys; its last part names the service
	Datacenter string // empty: that of the agent
	Token      string // ACL token; empty: CONSUL_HTTP_TOKEN, or anonymous
	TLS        *TLS   // nil: plain, or the system's authorities for https://

	// TTL of a life: at least 10 s. An instance that dies is seen dead by the
	// others after it; one that cannot reach Consul ends its life after it.
	TTL time.Duration

	// StateFile remembers the session of the last life, so that a process that
	// was killed ends it when it comes back, and does not wait for itself. The
	// caller must hold a lock that keeps a second process from the same file.
	// Empty: nothing is remembered.
	StateFile string

	// HTTP is the host:port registered with the service; may be empty.
	HTTP string

	Logger *slog.Logger // nil: nothing is logged

	// Dial opens connections to Consul; nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// TLS is the client's side of TLS to Consul, by files of PEM.
type TLS struct {
	CA, Cert, Key, ServerName string
	InsecureSkipVerify        bool
}

// MinTTL is the least TTL that Consul gives a session.
const MinTTL = 10 * time.Second

var (
	// ErrFenced says that a term has ended: another one leads, or none.
	ErrFenced = errors.New("the term is over")
	// ErrLost says that a life has ended: Consul does not know its session any
	// more, or it could not be renewed in time.
	ErrLost = errors.New("the membership is lost")
)

var instanceName = regexp.MustCompile(`\A[a-zA-Z0-9][a-zA-Z0-9._-]*\z`)

// Client is one instance's place in the live world. Its methods may be called
// concurrently.
type Client struct {
	backend  backend
	instance string
	prefix   string // with a slash at its end
	service  string
	http     string
	ttl      time.Duration
	state    string // file; empty: none
	log      *slog.Logger
	sweeping sweepTimes

	mu        sync.Mutex          // guards the fields below
	lives     map[string]*life    // those that have not ended, by id
	pieces    map[string][]string // keys of the pieces that this client wrote last, by the key that refers to them
	unchecked bool                // sessions cannot depend on a check here, see openSession
}

// New returns a client of a real Consul. It opens no connection.
func New(config Config) (*Client, error) {
	switch {
	case !instanceName.MatchString(config.Instance):
		return nil, fmt.Errorf("consul: %q is no name for an instance", config.Instance)
	case strings.Trim(config.Prefix, "/") == "":
		return nil, errors.New("consul: no prefix for keys")
	case config.TTL < MinTTL:
		return nil, fmt.Errorf("consul: a TTL of %v is less than %v", config.TTL, MinTTL)
	}
	remote, err := newRemote(config)
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	client := newClient(remote, config.Instance, config.Prefix, config.TTL)
	client.http, client.state = config.HTTP, config.StateFile
	if config.Logger != nil {
		client.log = config.Logger.With(slog.String("consul", config.Address))
	}
	return client, nil
}

// NewLocal returns the in-process twin for a single instance: it is always a
// member, it always leads, and its fences grow from process to process.
func NewLocal(instance string) *Client {
	return newClient(newHub().link(), instance, "local", 24*time.Hour)
}

func newClient(b backend, instance, prefix string, ttl time.Duration) *Client {
	prefix = strings.Trim(prefix, "/")
	return &Client{
		backend:  b,
		instance: instance,
		prefix:   prefix + "/",
		service:  prefix[strings.LastIndexByte(prefix, '/')+1:],
		ttl:      ttl,
		log:      slog.New(slog.DiscardHandler),
		sweeping: sweepTimes{every: 30 * time.Second, grace: 10 * time.Minute},
		lives:    map[string]*life{},
		pieces:   map[string][]string{},
	}
}

func (c *Client) leaderKey() string { return c.prefix + "leader" }

// The kinds of values, as they stand in keys.
const (
	kindMembers     = "members"
	kindHeld        = "held"
	kindAssignments = "assignments"
)

// key is where the value of a kind stands for a life.
func (c *Client) key(kind, id string) string {
	if kind == kindAssignments {
		return c.prefix + kind + "/" + id
	}
	return c.prefix + "live/" + kind + "/" + id
}

func (c *Client) chunkPrefix(kind, id string) string {
	return c.prefix + "chunks/" + kind + "/" + id + "/"
}

func (c *Client) life(id string) (*life, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.lives[id]
	return l, ok
}
