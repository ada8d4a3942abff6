package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Defaults of a Dialer.
const (
	DefaultMaxResponse    = 128 << 20
	DefaultRequestTimeout = 30 * time.Second
)

// Dialer makes connections to brokers. It may be used concurrently and must not
// change while it is.
type Dialer struct {
	ClientID        string // empty: null
	SoftwareVersion string // told to the broker in ApiVersions (KIP-511); empty: "dev"
	// Dial opens the transport; nil: a net.Dialer with keep-alive.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is nil for a plain connection. Without a ServerName, the host of the
	// address is verified.
	TLS *tls.Config
	// Authenticate runs after ApiVersions, before Connect returns; nil: none.
	Authenticate func(ctx context.Context, c *Conn) error
	// MaxResponse is the largest response in bytes; 0: DefaultMaxResponse.
	MaxResponse int32
	// RequestTimeout ends a connection on which a request waits and nothing
	// arrives for that long, or on which 1 MiB takes that long to leave. It also
	// bounds Connect as a whole. 0: DefaultRequestTimeout.
	RequestTimeout time.Duration
}

func (d *Dialer) requestTimeout() time.Duration {
	if d.RequestTimeout > 0 {
		return d.RequestTimeout
	}
	return DefaultRequestTimeout
}

func (d *Dialer) maxResponse() int32 {
	if d.MaxResponse > 0 {
		return d.MaxResponse
	}
	return DefaultMaxResponse
}

// Connect opens a connection to a broker: transport, TLS, ApiVersions (version
// 3, or 0 when the broker asks for it) and Authenticate. Every error is or
// wraps a *ConnError. ctx bounds the connecting only.
func (d *Dialer) Connect(ctx context.Context, addr string) (*Conn, error) {
	timeout := d.requestTimeout()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no connection within %s: %w", timeout, context.DeadlineExceeded))
	defer cancel()
	c, err := d.connect(ctx, addr)
	var said *ConnError
	switch {
	case err == nil:
		return c, nil
	case errors.As(err, &said):
		return nil, err
	default:
		return nil, &ConnError{Addr: addr, Err: err}
	}
}

func (d *Dialer) connect(ctx context.Context, addr string) (*Conn, error) {
	dial := d.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
	nc, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if d.TLS != nil {
		if nc, err = d.handshake(ctx, nc, addr); err != nil {
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
	}
	c := newConn(nc, addr, d)
	if err := c.negotiate(ctx, d.SoftwareVersion); err != nil {
		_ = c.Close()
		return nil, err
	}
	if d.Authenticate != nil {
		if err := d.Authenticate(ctx, c); err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("authenticate: %w", err)
		}
	}
	return c, nil
}

func (d *Dialer) handshake(ctx context.Context, nc net.Conn, addr string) (net.Conn, error) {
	config := d.TLS
	if config.ServerName == "" && !config.InsecureSkipVerify {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = addr
		}
		config = config.Clone()
		config.ServerName = host
	}
	secure := tls.Client(nc, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return secure, nil
}

// negotiate asks which versions the broker offers.
func (c *Conn) negotiate(ctx context.Context, softwareVersion string) error {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName = "kmirror"
	req.ClientSoftwareVersion = softwareVersion
	if softwareVersion == "" {
		req.ClientSoftwareVersion = "dev"
	}
	version := int16(3)
	body, err := c.exchange(ctx, req, version)
	if err != nil {
		return err
	}
	if len(body) >= 2 && int16(binary.BigEndian.Uint16(body)) == kerr.UnsupportedVersion.Code {
		version = 0 // the answer to a version too new is in the layout of v0 (KIP-511)
		if body, err = c.exchange(ctx, req, version); err != nil {
			return err
		}
	}
	decoded, err := decodeResponse(req, version, body)
	if err != nil {
		return err
	}
	resp, ok := decoded.(*kmsg.ApiVersionsResponse)
	if !ok {
		return fmt.Errorf("ApiVersions answered by %T", decoded)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return fmt.Errorf("ApiVersions: %w", err)
	}
	c.versions = make(map[int16]versionRange, min(len(resp.ApiKeys), math.MaxInt16))
	for _, k := range resp.ApiKeys {
		c.versions[k.ApiKey] = versionRange{low: k.MinVersion, high: k.MaxVersion}
	}
	return nil
}
