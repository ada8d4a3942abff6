package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kmirror/internal/bench"
	"kmirror/internal/wire"
)

type benchOptions struct {
	workloads  []string
	megabytes  int
	partitions int32
	rate       int
	length     time.Duration
	limit      time.Duration
	keep       bool
}

// benchLatency is the workload that times single records; the others are loads.
const benchLatency = "latency"

func (a *app) benchCommand() *cobra.Command {
	var o benchOptions
	command := &cobra.Command{
		Use:   "bench [SOURCE TARGET]",
		Short: "Measure what mirroring costs here",
		Long: `Makes a load in one cluster, lets a kmirror of its own mirror it into another,
compares the copy record by record, and says how fast it went, what processor time
and memory it took, and how long a record is on its way.

SOURCE and TARGET are clusters of the configuration. Without them it starts two
embedded clusters in a temporary directory, which goes away at the end; then
client, clusters and mirror share this machine.

Workloads:
  lz4, zstd, uncompressed   records of 1 KB in batches of 64 KB
  one-record                the same records, each a batch of its own (linger.ms=0)
  1MB-records               records of 1 MB
  latency                   a steady load of one-record batches, each record timed from
                            when it was due at the source to when a reader at the target has it

It writes to topics that it makes, and deletes them at the end: kmirror-bench-... at
the source, source.kmirror-bench-... at the target. The mirror also writes what every
flow writes to __kmirror_offset_map at the target, which stays. If another flow mirrors
every topic of SOURCE, exclude kmirror-bench-.* from it.`,
		Example: `  kmirror bench                                   # two embedded clusters, about a minute
  kmirror bench east hq --megabytes 2000 --limit 10m
  kmirror bench --workload lz4,latency --rate 5000
  kmirror bench -o json | jq '.results[].megabytes_per_second'`,
		GroupID:           "clusters",
		Args:              benchArgs,
		ValidArgsFunction: a.completeClusters(2),
		RunE: func(command *cobra.Command, args []string) error {
			return a.bench(command.Context(), args, o)
		},
	}
	flags := command.Flags()
	flags.StringSliceVarP(&o.workloads, "workload", "w", []string{"lz4", "one-record", benchLatency}, "what to run, `NAMES` with commas")
	flags.IntVar(&o.megabytes, "megabytes", 256, "the size `N` of a load; that of one-record is a tenth")
	flags.Int32Var(&o.partitions, "partitions", 4, "how many partitions a load has")
	flags.IntVar(&o.rate, "rate", 1000, "records per second of the latency workload")
	flags.DurationVar(&o.length, "length", 15*time.Second, "for how long the latency workload times records")
	flags.DurationVar(&o.limit, "limit", 3*time.Minute, "stop after this time, whatever is left to do")
	flags.BoolVar(&o.keep, "keep", false, "leave the topics, and the temporary directory, where they are")
	_ = command.RegisterFlagCompletionFunc("workload", cobra.FixedCompletions(benchNames(), cobra.ShellCompDirectiveNoFileComp))
	return command
}

func benchArgs(_ *cobra.Command, args []string) error {
	if len(args) == 0 || len(args) == 2 && args[0] != args[1] {
		return nil
	}
	return fmt.Errorf("it takes two clusters, SOURCE and TARGET, or none")
}

// benchLoads are the loads by name, in the order of the help.
func benchLoads() []bench.Workload {
	const kilobyte, batch = 1024, 64 << 10
	return []bench.Workload{
		{Name: "lz4", Codec: wire.CodecLZ4, RecordSize: kilobyte, BatchSize: batch},
		{Name: "zstd", Codec: wire.CodecZstd, RecordSize: kilobyte, BatchSize: batch},
		{Name: "uncompressed", Codec: wire.CodecNone, RecordSize: kilobyte, BatchSize: batch},
		{Name: "one-record", Codec: wire.CodecNone, RecordSize: kilobyte},
		{Name: "1MB-records", Codec: wire.CodecNone, RecordSize: 1_000_000},
	}
}

func benchNames() []string {
	var names []string
	for _, w := range benchLoads() {
		names = append(names, w.Name)
	}
	return append(names, benchLatency)
}

// check refuses what cannot be meant.
func (o benchOptions) check() error {
	for _, name := range o.workloads {
		if !slices.Contains(benchNames(), name) {
			return withCode(exitUsage, fmt.Errorf("--workload %s: there are %s", name, strings.Join(benchNames(), ", ")))
		}
	}
	switch {
	case o.megabytes < 1 || o.megabytes > 1_000_000:
		return withCode(exitUsage, fmt.Errorf("--megabytes %d: it is 1 to 1000000", o.megabytes))
	case o.partitions < 1 || o.partitions > 1000:
		return withCode(exitUsage, fmt.Errorf("--partitions %d: it is 1 to 1000", o.partitions))
	case o.rate < 1 || o.rate > 100_000:
		return withCode(exitUsage, fmt.Errorf("--rate %d: it is 1 to 100000", o.rate))
	case o.length < time.Second || o.length > time.Hour:
		return withCode(exitUsage, fmt.Errorf("--length %v: it is 1s to 1h", o.length))
	case o.limit < 10*time.Second:
		return withCode(exitUsage, fmt.Errorf("--limit %v: it is 10s at least", o.limit))
	}
	return nil
}

// load is the workload in the size that the flags say.
func (o benchOptions) load(w bench.Workload) bench.Workload {
	bytes := int64(o.megabytes) * 1e6
	if w.BatchSize == 0 && w.RecordSize < 64<<10 {
		bytes /= 10
	}
	w.Records = max(bytes/int64(w.RecordSize), 10)
	w.Partitions = o.partitions
	return w
}

// benchReport is what `kmirror bench -o json` prints.
type benchReport struct {
	Version string        `json:"version"`
	Source  string        `json:"source"`
	Target  string        `json:"target"`
	Results []benchResult `json:"results"`
}

// benchResult is one workload's outcome. What was not measured is left out.
type benchResult struct {
	Workload   string  `json:"workload"`
	Records    int64   `json:"records,omitempty"`
	Bytes      int64   `json:"bytes,omitempty"` // on the wire
	Seconds    float64 `json:"seconds,omitempty"`
	Rate       float64 `json:"megabytes_per_second,omitempty"`
	RecordRate float64 `json:"records_per_second,omitempty"`
	CPU        float64 `json:"cpu_seconds_per_gigabyte,omitempty"`
	CPURecord  float64 `json:"cpu_microseconds_per_record,omitempty"`
	Cores      float64 `json:"cores,omitempty"`
	Clusters   float64 `json:"cluster_cores,omitempty"` // of the embedded clusters
	PeakMemory int64   `json:"peak_memory_bytes,omitempty"`
	First      float64 `json:"first_record_seconds,omitempty"`
	Latency    *millis `json:"latency_milliseconds,omitempty"`
	Direct     *millis `json:"direct_latency_milliseconds,omitempty"` // of the source alone
	Verified   bool    `json:"verified"`                              // the copy was compared, and is what the source is
	Error      string  `json:"error,omitempty"`
}

// millis are quantiles of latency.
type millis struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

func inMillis(l bench.Latency) *millis {
	of := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	return &millis{of(l.P50), of(l.P99), of(l.P999), of(l.Max)}
}

// showBench prints the report, and tells whether something went wrong.
func (a *app) showBench(r benchReport) error {
	if a.wantsJSON() {
		return a.writeJSON(r)
	}
	t := newTable("WORKLOAD", ">MB", ">MB/S", ">RECORDS/S", ">CPU-S/GB", ">CPU µS/RECORD", ">CORES", ">PEAK MIB", ">START MS", ">P50 MS", ">P99", ">P99.9", "COPY")
	figure := func(format string, value float64) string {
		if value == 0 {
			return "-"
		}
		return fmt.Sprintf(format, value)
	}
	for _, one := range r.Results {
		verdict := "equal"
		switch {
		case one.Error != "":
			verdict = one.Error
		case !one.Verified:
			verdict = "-"
		}
		p50, p99, p999 := "-", "-", "-"
		if l := one.Latency; l != nil {
			p50, p99, p999 = fmt.Sprintf("%.1f", l.P50), fmt.Sprintf("%.1f", l.P99), fmt.Sprintf("%.1f", l.P999)
		}
		t.row(one.Workload, figure("%.0f", float64(one.Bytes)/1e6), figure("%.0f", one.Rate), figure("%.0f", one.RecordRate), figure("%.2f", one.CPU), figure("%.1f", one.CPURecord),
			figure("%.2f", one.Cores), figure("%.0f", float64(one.PeakMemory)/(1<<20)), figure("%.0f", one.First*1e3), p50, p99, p999, verdict)
		if d := one.Direct; d != nil {
			t.row("  the source alone", "-", "-", "-", "-", "-", "-", "-", "-", fmt.Sprintf("%.1f", d.P50), fmt.Sprintf("%.1f", d.P99), fmt.Sprintf("%.1f", d.P999), "")
		}
	}
	if err := t.write(a.out, ""); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.out, "\n%s -> %s. MB/s and CPU: of what a batch takes on the wire, the first tenth not counted; CPU and memory: of the mirror's process.\n", r.Source, r.Target)
	return err
}

// bench runs the workloads, one after the other.
func (a *app) bench(ctx context.Context, args []string, o benchOptions) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	b, err := a.openBench(ctx, args, o)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done within --limit %v", o.limit))
	defer cancel()
	for _, name := range o.workloads {
		b.run(limited, name)
		if ctx.Err() != nil {
			break
		}
	}
	b.progress.done()
	err = b.close(context.WithoutCancel(ctx))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if shownErr := a.showBench(b.report); shownErr != nil {
		return shownErr
	}
	for _, one := range b.report.Results {
		if one.Error != "" && err == nil {
			return &shownError{exitFailure}
		}
	}
	return err
}
