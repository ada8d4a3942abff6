package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"gopkg.in/yaml.v3"

	"kmirror/topology"
)

// What the two clusters are called in the configuration of a child.
const (
	benchSource = "source"
	benchTarget = "target"
)

// child is a `kmirror run` that bench has started: the mirror in a process of
// its own, so that its processor time and memory are nobody else's.
type child struct {
	name  string
	cmd   *exec.Cmd
	log   string        // file
	ended chan struct{} // closed when the process has ended, with err final
	err   error
}

// start writes the configuration, which must not hold secrets, and runs it.
// Secrets go in the child's environment.
func (b *benchmark) start(ctx context.Context, name string, config map[string]any, environment []string) (*child, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	config["instance"] = "bench-" + b.id
	config["data_dir"] = b.file(name)
	config["http"] = "127.0.0.1:0"
	text, err := yaml.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("write a configuration: %w", err)
	}
	file := b.file(name + ".yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, fmt.Errorf("write a configuration: %w", err)
	}
	c := &child{name: name, log: b.file(name + ".log"), ended: make(chan struct{})}
	log, err := os.Create(c.log)
	if err != nil {
		return nil, fmt.Errorf("write a log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own
	c.cmd = exec.CommandContext(context.WithoutCancel(ctx), executable, "run", "--quiet", "--config", file)
	c.cmd.Env = append(os.Environ(), environment...)
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// alive is an error when the process has ended by itself.
func (c *child) alive() error {
	select {
	case <-c.ended:
		return fmt.Errorf("its mirror ended: %w", errors.Join(errors.New("that is a fault of kmirror's"), c.err))
	default:
		return nil
	}
}

// stop ends the process in order, or at once when it takes too long.
func (c *child) stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended: nothing to do
	select {
	case <-c.ended:
		return nil
	case <-time.After(engineGrace + brokerGrace):
		return errors.Join(fmt.Errorf("%s did not stop in %v", c.name, engineGrace+brokerGrace), c.cmd.Process.Kill())
	}
}

// explain adds the last words of the process's log.
func (c *child) explain(err error) error {
	content, readErr := os.ReadFile(c.log)
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	if readErr != nil || len(content) == 0 {
		return err
	}
	return fmt.Errorf("%w (%s)", err, lines[len(lines)-1])
}

// startMirror starts a mirror of one topic, and nothing but it.
func (b *benchmark) startMirror(ctx context.Context, name, topic string) (*child, error) {
	var environment []string
	source, err := clusterSection(b.source.topology, "KMIRROR_BENCH_SOURCE_PASSWORD", &environment)
	if err != nil {
		return nil, err
	}
	target, err := clusterSection(b.target.topology, "KMIRROR_BENCH_TARGET_PASSWORD", &environment)
	if err != nil {
		return nil, err
	}
	return b.start(ctx, name, map[string]any{
		"clusters": map[string]any{benchSource: source, benchTarget: target},
		"flows": []any{map[string]any{
			"from": benchSource, "to": benchTarget, "topics": []string{regexp.QuoteMeta(topic)},
			"heartbeats": false, "checkpoints": false, "group_sync": map[string]any{"enabled": false},
		}},
	}, environment)
}

// clusterSection is how a child reaches a cluster. A password goes into the
// variable of its environment, never into a file.
func clusterSection(t *topology.Cluster, variable string, environment *[]string) (map[string]any, error) {
	section := map[string]any{"bootstrap": t.Addresses()}
	if t.ClientID != "" {
		section["client_id"] = literal(t.ClientID)
	}
	if t.TLS != nil {
		tls := map[string]any{}
		for key, path := range map[string]string{"ca": t.TLS.CA, "cert": t.TLS.Cert, "key": t.TLS.Key} {
			if path == "" {
				continue
			}
			whole, err := filepath.Abs(path)
			if err != nil {
				return nil, fmt.Errorf("cluster %s: tls.%s: %w", t.Name, key, err)
			}
			tls[key] = literal(whole)
		}
		if t.TLS.ServerName != "" {
			tls["server_name"] = literal(t.TLS.ServerName)
		}
		if t.TLS.InsecureSkipVerify {
			tls["insecure_skip_verify"] = true
		}
		section["tls"] = tls
	}
	if t.SASL != nil {
		section["sasl"] = map[string]any{"mechanism": strings.ToLower(t.SASL.Mechanism), "user": literal(t.SASL.User), "password": "${" + variable + "}"}
		*environment = append(*environment, variable+"="+t.SASL.Password.Reveal())
	}
	return section, nil
}

// literal keeps a text from being substituted.
func literal(text string) string { return strings.ReplaceAll(text, "${", "$${") }

// startClusters starts two embedded clusters in a process of their own.
func (b *benchmark) startClusters(ctx context.Context) (source, target *topology.Cluster, err error) {
	clusters := map[string]any{}
	found := map[string]*topology.Cluster{}
	for _, name := range []string{benchSource, benchTarget} {
		address, err := unusedAddress(ctx)
		if err != nil {
			return nil, nil, err
		}
		clusters[name] = map[string]any{"embedded": map[string]any{"nodes": []string{address}}}
		found[name] = &topology.Cluster{Name: name, Bootstrap: []string{address}}
	}
	if b.clusters, err = b.start(ctx, "clusters", map[string]any{"clusters": clusters}, nil); err != nil {
		return nil, nil, err
	}
	// They answer some milliseconds later.
	var dialer net.Dialer
	for deadline := time.Now().Add(b.app.timeout); ; {
		left := maps.Clone(found)
		maps.DeleteFunc(left, func(_ string, t *topology.Cluster) bool {
			conn, err := dialer.DialContext(ctx, "tcp", t.Bootstrap[0])
			if err == nil {
				_ = conn.Close() // it was only to see whether somebody answers
			}
			return err == nil
		})
		if len(left) == 0 {
			return found[benchSource], found[benchTarget], nil
		}
		if err := b.clusters.alive(); err != nil || time.Now().After(deadline) {
			return nil, nil, b.clusters.explain(errors.Join(errors.New("the embedded clusters do not start"), err))
		}
		select {
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// unusedAddress is an address of this machine where nobody listens.
func unusedAddress(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}
