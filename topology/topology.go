// Package topology is the desired world: which clusters there are, which flows
// run between them, what each topic is called on the other side, and how
// instances find each other. It reads mirror.yaml and proves things about it
// before anything starts.
//
// The promises:
//
//   - Strict. Every fault of a file is reported at once, each with file, line,
//     YAML path, what is wrong and what to do ([Faults]). An unknown key, a
//     duplicate key, a value of the wrong type or a second document is a fault;
//     nothing is guessed and nothing is silently ignored.
//   - Proven. No two flows of a file can write one topic, no record can travel
//     in a circle, and every name on a target maps back to one on its source.
//     The proofs are exact: they intersect the regular languages of the flows'
//     patterns, and show a topic name as the counterexample. Circles of flows
//     with identity naming may be broken by who wrote a batch: see [LoopRule].
//   - Immutable. A [Config] is read-only after [Load]; all methods are safe for
//     concurrent use.
//   - Discreet. A [Secret] never shows in a log or an error, nor does any value
//     that came from ${ENV} or ${file:PATH}.
//
// The package is a leaf: it imports none of ours, opens no connection, and
// reads only the file itself and those it names.
package topology

import (
	"path/filepath"
	"time"
)

// Config is one mirror.yaml, checked and with its defaults filled in.
type Config struct {
	Path         string       // of the file, as it was given
	Instance     string       // name of this instance; default: the host name
	DataDir      string       // directory of all state; a relative one is relative to the file
	HTTP         string       // host:port of page, API and metrics; port 0 takes a free one
	Buffer       int64        // bytes that all flows together may hold in memory
	Log          Log          // what is logged and how
	Clusters     []*Cluster   // in file order, at least one
	Flows        []*Flow      // in file order, may be empty
	Coordination Coordination // how instances share the work

	veiled []string // paths of values with a substitution in them, which Diff does not show
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// Coordination says how instances share the work. Without Consul there is one instance.
type Coordination struct {
	Consul *Consul // nil: a single instance
}

// Consul is where the instances of one deployment meet.
type Consul struct {
	Address    string        // host:port, http://..., https://... or unix://...
	Prefix     string        // of every key and of the service name; no slash at either end
	Datacenter string        // empty: that of the agent
	Token      Secret        // ACL token; empty: anonymous
	TTL        time.Duration // of the session, at least 10 s; the time after which a dead instance's work moves
	TLS        *TLS          // nil: plain, or the system's authorities for an https:// address
}

// Default returns what a key that is left out means. Clusters, flows and the
// host's name are not among it.
func Default() Config {
	return Config{
		DataDir: "data",
		HTTP:    "127.0.0.1:7070",
		Buffer:  64 << 20,
		Log:     Log{Level: "info", Format: "text"},
	}
}

// Cluster returns the cluster of that name, nil if there is none.
func (c *Config) Cluster(name string) *Cluster {
	for _, cluster := range c.Clusters {
		if cluster.Name == name {
			return cluster
		}
	}
	return nil
}

// Flow returns the flow of that name ("east->west"), nil if there is none.
func (c *Config) Flow(name string) *Flow {
	for _, flow := range c.Flows {
		if flow.Name == name {
			return flow
		}
	}
	return nil
}

// Opposite returns the flow that mirrors the other way, from f's target to its
// source, nil if there is none.
func (c *Config) Opposite(f *Flow) *Flow { return c.Flow(f.To + "->" + f.From) }

// Dir is the directory of the file; relative paths in the file start there.
func (c *Config) Dir() string { return filepath.Dir(c.Path) }
