// Package console is kmirror's window: one HTTP server with health, metrics,
// a JSON API and a plain page, and the client that the command line uses.
//
// It owns the HTTP surface and the letter of its JSON. It keeps these promises:
// whoever reaches it may read and no more; what steers is by POST, and only for
// programs on this machine, never for a web page; every answer is bounded and
// escaped (topic and group names are whatever a Kafka client made up); a slow or
// silent peer costs one connection for a bounded time; and the page loads nothing
// from anywhere else.
//
// It does not know how records travel: it asks an Engine for copies of its
// state. The routes:
//
//	/                    the page, rendered on the server
//	/healthz             200 while the process serves
//	/readyz              200 once the engine is ready, 503 before
//	/metrics             Prometheus text
//	/api/v1/status       StatusAnswer
//	/api/v1/groups?flow= GroupsAnswer; group=, match=, state=, limit=, partitions=
//	/api/v1/lag?flow=    LagAnswer; topic=, partitions=
//	/api/v1/rpo?flow=    RPOAnswer; the same
//	/api/v1/incidents    IncidentsAnswer; after=, since=, flow=, topic=, kind=, limit=
//
// and by POST, with JSON:
//
//	/api/v1/flows/{flow}/pause   {"topic"}: a topic, or the whole flow
//	/api/v1/flows/{flow}/resume  {"topic", "partition", "accept"}
//	/api/v1/reload               {"dry_run"}: ReloadAnswer
package console

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kmirror/checkpoint"
	"kmirror/mirror"
)

// Engine is what the console shows. All may be called from many
// goroutines at once; what they return belongs to the caller.
type Engine interface {
	Status() mirror.Status
	// Groups returns false when there is no such flow, and nil when this instance does
	// not know about its groups.
	Groups(flow string) (iter.Seq[checkpoint.GroupStatus], bool)
	Ready() bool
	// Incidents are those with an id above since, oldest first.
	Incidents(since uint64) []mirror.Incident
}

// Options is what a server needs.
type Options struct {
	Engine   Engine
	Steering Steering      // nil: nothing can be paused or resumed
	Config   Configuration // nil: nothing can be reloaded
	Gatherer prometheus.Gatherer
	Logger   *slog.Logger // nil: silent
	// Drain bounds how long Run waits for requests under way when it stops; default 2 s.
	Drain time.Duration
}

// Server serves the console on one listener.
type Server struct {
	opts    Options
	handler http.Handler
}

// The bounds on a peer: nobody may hold a connection for longer, or send more.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
	maxConnections    = 256
)

// New builds a server; it does no I/O.
func New(o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Drain == 0 {
		o.Drain = 2 * time.Second
	}
	page, err := newPage(o)
	if err != nil {
		return nil, err
	}
	return &Server{opts: o, handler: routes(o, page)}, nil
}

// Handler returns the console as a handler, for tests and for embedding.
func (s *Server) Handler() http.Handler { return s.handler }

// Run serves on l, which it closes, until ctx ends; then it lets the requests
// under way finish for at most Options.Drain. It returns nil on an orderly stop.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(limitConnections(l, maxConnections)) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.Drain)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		// Whoever still reads after the drain time is cut off; that is no fault of ours.
		_ = server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
	}
	return nil
}
