package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"syscall"
	"time"
)

// listen binds an address that a key of the configuration, or a flag, names.
func listen(ctx context.Context, key, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, explainListen(key, address, err)
	}
	return l, nil
}

// explainListen says what to do about an address that cannot be bound.
func explainListen(key, address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return withCode(exitBusy, fmt.Errorf("%s: another process listens on %s already: stop it (ss -ltnp shows it), or choose another port", key, address))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return withCode(exitUsage, fmt.Errorf("%s: %s is no address of this machine: listen on one that is, or on 0.0.0.0 for all", key, address))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: no right to listen on %s: ports below 1024 need CAP_NET_BIND_SERVICE, or choose another port", key, address)
	default:
		return fmt.Errorf("%s: listen on %s: %w", key, address, err)
	}
}

// serveProfiles serves Go's profiles on l until ctx ends.
func serveProfiles(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve profiles on %s: %w", l.Addr(), err)
	}
	return nil
}
