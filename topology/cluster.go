package topology

import (
	"net"
	"slices"
	"time"
)

// Cluster is one Kafka cluster: embedded in this process, or any other reached
// by its bootstrap addresses. Exactly one of Embedded and Bootstrap is set.
type Cluster struct {
	Name      string
	Embedded  *Embedded
	Bootstrap []string // host:port
	TLS       *TLS     // nil: plain; never with Embedded
	SASL      *SASL    // nil: none; never with Embedded
	ClientID  string   // that brokers see in their logs and quotas
}

// Embedded is a cluster whose broker nodes run in this process.
type Embedded struct {
	Nodes         []string          // host:port to listen on, one per node; in this version exactly one
	Advertised    []string          // host:port that clients are told, one per node; never empty after Load
	Fsync         string            // FsyncBatch, FsyncInterval or FsyncNever
	FsyncInterval time.Duration     // for FsyncInterval
	Settings      map[string]string // by Kafka's broker config names, see [Settings]
}

// When an embedded node forces appended batches to the disk.
const (
	FsyncBatch    = "batch"    // before they are acknowledged, many at once
	FsyncInterval = "interval" // every FsyncInterval; a power cut loses what is younger
	FsyncNever    = "never"    // when the operating system likes
)

// TLS is a client's side of TLS. Paths are absolute or relative to the working directory.
type TLS struct {
	CA                 string // PEM file of authorities; empty: the system's
	Cert, Key          string // PEM files of the client's certificate; both or neither
	ServerName         string // expected in the certificate; empty: the host dialled
	InsecureSkipVerify bool
}

// SASL is a client's user and password.
type SASL struct {
	Mechanism string // MechanismPlain, MechanismScram256 or MechanismScram512
	User      string
	Password  Secret
}

// SASL mechanisms, by the names they have on the wire.
const (
	MechanismPlain    = "PLAIN"
	MechanismScram256 = "SCRAM-SHA-256"
	MechanismScram512 = "SCRAM-SHA-512"
)

// Addresses returns where to connect first: the bootstrap addresses, or those
// of the embedded nodes, the loopback address in place of a wildcard.
func (c *Cluster) Addresses() []string {
	if c.Embedded == nil {
		return slices.Clone(c.Bootstrap)
	}
	addresses := make([]string, 0, len(c.Embedded.Nodes))
	for _, node := range c.Embedded.Nodes {
		addresses = append(addresses, dialable(node))
	}
	return addresses
}

// dialable replaces a wildcard host, which can only be listened on.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	switch host {
	case "", "0.0.0.0":
		return net.JoinHostPort("127.0.0.1", port)
	case "::":
		return net.JoinHostPort("::1", port)
	}
	return address
}
