package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/IBM/sarama"
	"github.com/spf13/cobra"

	"kmirror/internal/kafka"
	"kmirror/topology"
)

// cluster finds a cluster by the name it has in the configuration.
func findCluster(cfg *topology.Config, name string) (*topology.Cluster, error) {
	if cluster := cfg.Cluster(name); cluster != nil {
		return cluster, nil
	}
	return nil, withCode(exitNotFound, fmt.Errorf("no cluster %q in %s: there are %s", name, cfg.Path, strings.Join(clusterNames(cfg), ", ")))
}

func clusterNames(cfg *topology.Config) []string {
	names := make([]string, 0, len(cfg.Clusters))
	for _, c := range cfg.Clusters {
		names = append(names, c.Name)
	}
	return names
}

func flowNames(cfg *topology.Config) []string {
	names := make([]string, 0, len(cfg.Flows))
	for _, f := range cfg.Flows {
		names = append(names, f.Name)
	}
	return names
}

// remote is one cluster that a command has connected to.
type remote struct {
	*kafka.Cluster
	topology *topology.Cluster
}

// close gives the connections back.
func (r *remote) close() { _ = r.Close() } // its error is always nil

// connect opens a cluster and proves that it answers.
func (a *app) connect(ctx context.Context, t *topology.Cluster) (*remote, *kafka.Metadata, error) {
	cluster, err := kafka.New(t, kafka.Options{ClientID: "kmirror-cli"})
	if err != nil {
		return nil, nil, withCode(exitUsage, err)
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	metadata, err := cluster.Metadata(ctx)
	if err != nil {
		_ = cluster.Close()
		return nil, nil, unreachable(ctx, t, err)
	}
	return &remote{cluster, t}, metadata, nil
}

// connectByName is connect for a cluster that the user named.
func (a *app) connectByName(ctx context.Context, name string) (*topology.Config, *remote, *kafka.Metadata, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, nil, nil, err
	}
	t, err := findCluster(cfg, name)
	if err != nil {
		return nil, nil, nil, err
	}
	cluster, metadata, err := a.connect(ctx, t)
	return cfg, cluster, metadata, err
}

// unreachable says which cluster did not answer, where, why, and what to do.
func unreachable(ctx context.Context, t *topology.Cluster, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	remedy := "check its addresses, TLS and SASL in the configuration"
	if t.Embedded != nil {
		remedy = "it is served by `kmirror run`, which does not seem to be running here"
	}
	return withCode(exitUnreachable, &unreachableError{
		text: fmt.Sprintf("cluster %s does not answer at %s (%s): %s", t.Name, strings.Join(t.Addresses(), ", "), cause(err), remedy), err: err,
	})
}

type unreachableError struct {
	text string
	err  error
}

func (e *unreachableError) Error() string { return e.text }
func (e *unreachableError) Unwrap() error { return e.err }

// cause is the innermost word about a connection that did not come about.
func cause(err error) string {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &dns):
		return dns.Error()
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	default:
		return clean(err.Error())
	}
}

// await runs a call of sarama's, which knows no context, and leaves it behind when ctx ends.
func await[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := call()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// saramaFor is a configuration of sarama for this cluster, of which the caller may change everything.
func (r *remote) saramaFor(timeout func(*sarama.Config)) (*sarama.Config, error) {
	cfg, err := r.Sarama()
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	cfg.ClientID = "kmirror-cli"
	timeout(cfg)
	return cfg, nil
}

// findTopic finds a topic in what metadata said.
func findTopic(metadata *kafka.Metadata, cluster, name string) (*kafka.Topic, error) {
	topic := metadata.Topics[name]
	if topic == nil {
		return nil, withCode(exitNotFound, fmt.Errorf("no topic %q in %s: `kmirror topics %s` lists what there is", name, cluster, cluster))
	}
	if topic.Err != nil {
		return nil, fmt.Errorf("topic %s in %s: %w", name, cluster, topic.Err)
	}
	return topic, nil
}

// completeClusters completes the first n arguments with cluster names.
func (a *app) completeClusters(n int, others ...func(*topology.Config) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		cfg, err := topology.Load(a.config)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		names := clusterNames(cfg)
		for _, other := range others {
			names = append(names, other(cfg)...)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
