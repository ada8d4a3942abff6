package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"kmirror/internal/console"
	"kmirror/mirror"
	"kmirror/topology"
)

// greeting is what `kmirror run -o json` says when it is ready.
type greeting struct {
	Instance    string           `json:"instance"`
	Version     string           `json:"version"`
	Clusters    []checkedCluster `json:"clusters"`
	Flows       []string         `json:"flows"`
	Page        string           `json:"page"`
	ReadyMillis int64            `json:"ready_millis"`
}

// greet tells what is served, and when all of it is ready. It ends with ctx.
func (d *daemon) greet(ctx context.Context, engine *mirror.Engine) error {
	page := console.BaseURL(d.page.Addr().String()) + "/"
	silent := d.options.quiet
	if !silent && !d.app.wantsJSON() {
		writeGreeting(d.app.out, d.app, d.cfg, d.version, page)
	}
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	warn := time.After(10 * time.Second)
	for !engine.Ready() {
		select {
		case <-ticker.C:
		case <-warn:
			d.logger.Warn("not ready yet; the page and `kmirror status` say what is missing", slog.String("page", page))
			ticker.Reset(100 * time.Millisecond)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	took := time.Since(d.app.started).Milliseconds()
	d.logger.Info("ready", slog.Int64("millis", took))
	switch {
	case silent:
	case d.app.wantsJSON():
		seen := describeConfig(d.cfg)
		if err := d.app.writeJSON(greeting{d.cfg.Instance, d.version, seen.Clusters, flowNames(d.cfg), page, took}); err != nil {
			return err
		}
	default:
		fmt.Fprintf(d.app.out, "ready in %d ms\n", took)
	}
	<-ctx.Done()
	return ctx.Err()
}

// writeGreeting says in a few lines what there is and what to try.
func writeGreeting(w io.Writer, a *app, cfg *topology.Config, version, page string) {
	fmt.Fprintf(w, "kmirror %s, instance %s\n\n", version, cfg.Instance)
	for _, c := range cfg.Clusters {
		fmt.Fprintf(w, "  %-8s %-9s %s\n", c.Name, kindOf(c), strings.Join(c.Addresses(), ", "))
	}
	for _, f := range cfg.Flows {
		fmt.Fprintf(w, "  %-8s %s -> %s, %s appears as %s\n", "flow", f.From, f.To, "orders", f.TargetTopic("orders"))
	}
	fmt.Fprintf(w, "  %-8s %s\n\n", "page", page)
	for i, line := range suggestions(a, cfg) {
		lead := "try"
		if i > 0 {
			lead = ""
		}
		fmt.Fprintf(w, "  %-8s %s\n", lead, line)
	}
	fmt.Fprintln(w)
}

// suggestions are lines to try: write to one side with any client, read from
// the other with ours.
func suggestions(a *app, cfg *topology.Config) []string {
	from, topic := cfg.Clusters[0], "hello"
	to, mirrored := from, topic
	for _, f := range cfg.Flows {
		if f.Selects(topic) {
			from, to, mirrored = cfg.Cluster(f.From), cfg.Cluster(f.To), f.TargetTopic(topic)
			break
		}
	}
	write := "echo world | " + a.command("produce", from.Name, topic)
	if from.TLS == nil && from.SASL == nil {
		write = fmt.Sprintf("echo world | kcat -P -b %s -t %s", from.Addresses()[0], topic)
	}
	return []string{write, a.command("consume", to.Name, mirrored, "--count", "1")}
}
