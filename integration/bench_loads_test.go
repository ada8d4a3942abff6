package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"kmirror/internal/bench"
	"kmirror/internal/wire"
)

// step is one part of the comparison.
type step struct {
	name string
	run  func()
}

// program is what BENCH_WORKLOADS asks for, in our order.
func (c *contest) program() []step {
	gb := c.gigabytes * 1e9
	load := func(w bench.Workload, bytes float64) step {
		w.Records = max(int64(bytes)/int64(w.RecordSize), 100)
		return step{w.Name, func() { c.load(w) }}
	}
	// The figures are bytes before compression; lz4 leaves eight tenths of them.
	all := []step{
		load(bench.Workload{Name: "lz4", Codec: wire.CodecLZ4, RecordSize: 1024, BatchSize: 64 << 10, Partitions: 4}, gb/.8),
		{"latency-1000", func() { c.pulses("latency-1000", 1000, 1) }},
		load(bench.Workload{Name: "one-record", Codec: wire.CodecNone, RecordSize: 1024, Partitions: 4}, gb/4),
		load(bench.Workload{Name: "uncompressed", Codec: wire.CodecNone, RecordSize: 1024, BatchSize: 64 << 10, Partitions: 4}, gb/2),
		load(bench.Workload{Name: "zstd", Codec: wire.CodecZstd, RecordSize: 1024, BatchSize: 64 << 10, Partitions: 4}, gb/2),
		load(bench.Workload{Name: "1MB-records", Codec: wire.CodecNone, RecordSize: 1_000_000, Partitions: 4}, gb/2),
		load(bench.Workload{Name: compacted, Codec: wire.CodecLZ4, RecordSize: 1024, BatchSize: 64 << 10, Partitions: 4, Keys: 1}, gb/2),
		{"1000-partitions", func() { c.pulses("1000-partitions", 1000, 1000) }},
		{"latency-10000", func() { c.pulses("latency-10000", 10_000, 1) }},
		{"takeover", c.takeovers},
		{"10000-idle", c.idle},
	}
	wanted := os.Getenv("BENCH_WORKLOADS")
	if wanted == "" {
		return all
	}
	var some []step
	for _, name := range strings.FieldsFunc(wanted, func(r rune) bool { return r == ',' || r == ' ' }) {
		i := slices.IndexFunc(all, func(s step) bool { return s.name == name })
		if i < 0 {
			var names []string
			for _, s := range all {
				names = append(names, s.name)
			}
			c.t.Fatalf("BENCH_WORKLOADS: no %q; there are %s", name, strings.Join(names, ", "))
		}
		some = append(some, all[i])
	}
	return some
}

// compacted is the workload whose topic is compacted before it is mirrored.
const compacted = "compacted"

// warmUp is the share of a load that is carried before the counting begins, so
// that a JVM has compiled what it runs, and no start is in the figures.
const warmUp = .2

// load makes a load, and lets everybody carry it.
func (c *contest) load(w bench.Workload) {
	topic := "load-" + w.Name
	if err := c.fill(&w, topic); err != nil {
		c.failed(w.Name, "the load", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	source, err := c.reader.Read(ctx, c.client["east"], topic, nil)
	if err != nil {
		c.failed(w.Name, "the load", err)
		return
	}
	total := source.Total()
	c.say("%s: %d records, %.0f MB in %d batches", w.Name, total.Records, float64(total.Bytes)/1e6, total.Batches)
	for _, one := range c.contestants(w.Name) {
		rounds := c.rounds
		if one.once {
			rounds = 1
		}
		var found []row
		for round := range rounds {
			if time.Now().After(c.deadline) && round > 0 {
				break
			}
			if one.who == ours {
				c.relayRound(w.Name, topic)
			}
			r, err := c.carry(w.Name, one, topic, source, nil)
			c.sweep(topic)
			if err != nil {
				c.failed(w.Name, one.who, err)
				break
			}
			c.say("%s, %s: %s", w.Name, one.who, r.short())
			found = append(found, r)
		}
		if len(found) > 0 {
			c.rows = append(c.rows, median(found))
			if one.who == ours {
				c.profileLoad(w.Name, one, topic, source, found[0])
			}
		}
	}
	if len(c.relays) > 0 {
		c.rows = append(c.rows, median(c.relays))
		c.relays = nil
	}
}

// fill writes the load; a compacted one is compacted by the broker, and then
// left as it is.
func (c *contest) fill(w *bench.Workload, topic string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var settings []string
	if w.Name == compacted {
		// Of each key there are two records in a partition, about; those that stay
		// are all over the log, but for the segment that is written to.
		w.Keys = max(w.Records/int64(w.Partitions)/2, 1)
		segment := max(1<<20, w.Records*int64(w.RecordSize)/int64(w.Partitions)/16)
		settings = []string{"min.cleanable.dirty.ratio=0.01", fmt.Sprintf("segment.bytes=%d", segment), "min.compaction.lag.ms=0"}
	}
	c.create("east", topic, w.Partitions, settings...)
	if err := w.Fill(ctx, c.client["east"], topic, func(int64) {}); err != nil {
		return err
	}
	if w.Name != compacted {
		return nil
	}
	before, err := c.stored(topic)
	if err != nil {
		return err
	}
	if err := c.set(ctx, topic, "cleanup.policy", "compact"); err != nil {
		return err
	}
	if err := c.cleaned(ctx, topic, before); err != nil {
		return err
	}
	// What the broker compacts further while it is mirrored, a copy could not be compared with.
	if err := errors.Join(c.set(ctx, topic, "retention.ms", "-1"), c.set(ctx, topic, "cleanup.policy", "delete")); err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // a cleaning that had begun ends; nothing tells when
	return nil
}

// set changes a setting of a topic of the source.
func (c *contest) set(ctx context.Context, topic, name, value string) error {
	changes, err := c.admin("east").AlterTopicConfigs(ctx, []kadm.AlterConfig{{Name: name, Value: &value}}, topic)
	if err != nil {
		return err
	}
	_, err = changes.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	return err
}

// cleaned waits until the cleaner has taken away what it will: the files have
// become smaller than before, and stay as they are.
func (c *contest) cleaned(ctx context.Context, topic string, before int64) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	last, since := before, time.Now()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the broker does not compact %s: %w", topic, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
		now, err := c.stored(topic)
		if err != nil {
			return err
		}
		if now != last {
			last, since = now, time.Now()
		}
		if now < before*9/10 && time.Since(since) > 4*time.Second {
			return nil
		}
	}
}

// segments are the log files of a topic of the source.
func (c *contest) segments(topic string) ([]string, error) {
	return filepath.Glob(filepath.Join(c.dir, "east-kafka", topic+"-*", "*.log"))
}

// stored is how large they are together.
func (c *contest) stored(topic string) (int64, error) {
	files, err := c.segments(topic)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the cleaner has replaced it
		}
		if err != nil {
			return 0, err
		}
		sum += info.Size()
	}
	return sum, nil
}

// carry lets a contestant mirror a topic that is there, and holds the copy
// against the source. beside is called when the process is there; what it
// returns, when the copy is complete and the process still there. nil: neither.
func (c *contest) carry(workload string, one contestant, topic string, source bench.Log, beside func() (finish func())) (row, error) {
	total := source.Total()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	prefix := c.prefix()
	mirrored := prefix + "." + topic
	began := time.Now()
	p := one.start(prefix, topic)
	defer p.kill()
	finish := func() {}
	if beside != nil {
		finish = beside()
	}
	pids := map[string]int{"mirror": p.cmd.Process.Pid, "source": c.broker["east"].cmd.Process.Pid, "target": c.broker["west"].cmd.Process.Pid, "bench": os.Getpid()}
	copied, err := bench.Watch{
		Cluster: c.client["west"], Topic: mirrored, Records: total.Records, WarmUp: warmUp, Watched: pids, Alive: alive(p),
	}.Run(ctx, began)
	if err != nil {
		return row{}, fmt.Errorf("%w\n%s", err, p.tail(15))
	}
	memory, err := bench.MemoryOf(p.cmd.Process.Pid)
	if err != nil {
		return row{}, err
	}
	finish()
	p.kill()
	copyOf, err := c.reader.Read(ctx, c.client["west"], mirrored, source)
	if err != nil {
		return row{}, err
	}
	if what := source.Compare(copyOf); what != "" {
		return row{}, fmt.Errorf("the copy is not what the source is: %s", what)
	}
	return carried(workload, one.who, total, copied, memory), nil
}

// carried puts what was seen into a row.
func carried(workload, who string, total bench.Sum, c bench.Copied, memory bench.Memory) row {
	wall := c.Steady.Wall.Seconds()
	gigabytes := float64(total.Bytes) * c.Steady.Share / 1e9
	mirror := c.Used["mirror"]
	r := row{
		workload: workload, who: who, whole: c.Whole,
		rate: gigabytes * 1e3 / wall, records: float64(c.Steady.Records) / wall,
		cpu: mirror.CPU().Seconds() / gigabytes, user: mirror.User.Seconds() / gigabytes,
		perRecord: mirror.CPU().Seconds() * 1e6 / float64(c.Steady.Records),
		cores:     mirror.CPU().Seconds() / wall,
		start:     c.First.Seconds(), startCPU: c.Start["mirror"].CPU().Seconds(), memory: memory.Peak,
		source: c.Used["source"].CPU().Seconds() / wall, target: c.Used["target"].CPU().Seconds() / wall,
		busy: c.Busy.Seconds() / wall, copied: "equal",
	}
	known := mirror.CPU() + c.Used["source"].CPU() + c.Used["target"].CPU() + c.Used["bench"].CPU()
	r.others = max(0, (c.Busy-known).Seconds()/wall)
	return r
}

// relayRound lets the bare relay carry the topic's segment files.
func (c *contest) relayRound(workload, topic string) {
	files, err := c.segments(topic)
	if err != nil || len(files) == 0 {
		c.failed(workload, relayed, fmt.Errorf("no segment files: %w", err))
		return
	}
	slices.Sort(files)
	sink := filepath.Join(c.dir, "relay.copy")
	defer func() { _ = os.Remove(sink) }() // not made: nothing to remove
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var report bytes.Buffer
	parts := [][]string{
		{"sink", c.addr("sink"), sink},
		{"middle", c.addr("middle"), c.addr("sink")},
		append([]string{"source", c.addr("middle")}, files...),
	}
	var running []*exec.Cmd
	for i, args := range parts {
		cmd := exec.CommandContext(ctx, c.relay, args...)
		cmd.Stderr = os.Stderr
		if i == 1 {
			cmd.Stdout = &report
		}
		if err := cmd.Start(); err != nil {
			c.failed(workload, relayed, err)
			cancel()
			break
		}
		running = append(running, cmd)
	}
	for _, cmd := range running {
		err = errors.Join(err, cmd.Wait())
	}
	var told struct{ Bytes, Wall, User, System int64 }
	if err = errors.Join(err, json.Unmarshal(report.Bytes(), &told)); err != nil {
		c.failed(workload, relayed, err)
		return
	}
	gigabytes, wall := float64(told.Bytes)/1e9, float64(told.Wall)/1e9
	r := row{
		workload: workload, who: relayed, rate: gigabytes * 1e3 / wall, cpu: float64(told.User+told.System) / 1e9 / gigabytes,
		user: float64(told.User) / 1e9 / gigabytes, cores: float64(told.User+told.System) / float64(told.Wall), unfelt: true,
	}
	c.say("%s, %s: %s", workload, relayed, r.short())
	c.relays = append(c.relays, r)
}
