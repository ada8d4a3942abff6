package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/bench"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// benchPrefix begins the names of all topics that bench makes.
const benchPrefix = "kmirror-bench-"

// benchmark is one run of `kmirror bench`: two clusters, a directory, and what
// has come out so far.
type benchmark struct {
	app      *app
	options  benchOptions
	id       string // of this run, in the names of its topics
	dir      string
	source   *remote
	target   *remote
	reader   *bench.Reader
	progress *progress
	clusters *child // the embedded ones; nil: they were given
	report   benchReport
	made     []string // topics of the source
}

// openBench finds the clusters that were named, or starts a pair of its own.
func (a *app) openBench(ctx context.Context, args []string, o benchOptions) (b *benchmark, err error) {
	id := make([]byte, 4)
	_, _ = rand.Read(id) // it never fails
	b = &benchmark{app: a, options: o, id: hex.EncodeToString(id), reader: bench.NewReader(), progress: a.progress()}
	b.report.Version = readBuildInfo().Version
	b.report.Results = []benchResult{}
	if b.dir, err = os.MkdirTemp("", "kmirror-bench-"); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close(context.WithoutCancel(ctx)))
		}
	}()
	var source, target *topology.Cluster
	if len(args) == 2 {
		cfg, err := a.load()
		if err != nil {
			return b, err
		}
		if source, err = findCluster(cfg, args[0]); err != nil {
			return b, err
		}
		if target, err = findCluster(cfg, args[1]); err != nil {
			return b, err
		}
		b.report.Source, b.report.Target = args[0], args[1]
	} else {
		if source, target, err = b.startClusters(ctx); err != nil {
			return b, err
		}
		b.report.Source, b.report.Target = "embedded", "embedded"
	}
	if b.source, _, err = a.connect(ctx, source); err != nil {
		return b, err
	}
	b.target, _, err = a.connect(ctx, target)
	return b, err
}

// close gives back what the run has taken: topics, processes, files.
func (b *benchmark) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var faults []error
	if b.clusters == nil && !b.options.keep {
		for _, topic := range b.made {
			faults = append(faults, b.drop(ctx, topic))
		}
	}
	for _, r := range []*remote{b.source, b.target} {
		if r != nil {
			r.close()
		}
	}
	if b.clusters != nil {
		faults = append(faults, b.clusters.stop())
	}
	if b.options.keep {
		fmt.Fprintf(b.app.err, "kept: %s and the topics %s\n", b.dir, strings.Join(b.made, ", "))
	} else {
		faults = append(faults, os.RemoveAll(b.dir))
	}
	return errors.Join(faults...)
}

// run runs one workload and reports it, whatever became of it.
func (b *benchmark) run(ctx context.Context, name string) {
	var result benchResult
	var err error
	if name == benchLatency {
		result, err = b.latency(ctx)
	} else {
		for _, w := range benchLoads() {
			if w.Name == name {
				result, err = b.load(ctx, b.options.load(w))
			}
		}
	}
	b.progress.done()
	result.Workload = name
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		result.Error = clean(err.Error())
	}
	b.report.Results = append(b.report.Results, result)
}

// create makes a topic at the source.
func (b *benchmark) create(ctx context.Context, name string, partitions int32) (topic string, err error) {
	topic = benchPrefix + b.id + "-" + name
	ctx, cancel := context.WithTimeout(ctx, b.app.timeout)
	defer cancel()
	b.made = append(b.made, topic)
	return topic, b.source.CreateTopic(ctx, topic, partitions, -1, nil)
}

// mirrored is what a topic is called at the target.
func mirrored(topic string) string { return benchSource + "." + topic }

// drop deletes a topic of ours and its copy.
func (b *benchmark) drop(ctx context.Context, topic string) error {
	return errors.Join(deleteTopic(ctx, b.source.Cluster, topic), deleteTopic(ctx, b.target.Cluster, mirrored(topic)))
}

// deleteTopic deletes a topic if it is there.
func deleteTopic(ctx context.Context, cluster *kafka.Cluster, topic string) error {
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TimeoutMillis = 15_000
	request.TopicNames = []string{topic}
	one := kmsg.NewDeleteTopicsRequestTopic()
	one.Topic = &topic
	request.Topics = append(request.Topics, one)
	response, err := cluster.RequestController(ctx, request)
	if err != nil {
		return fmt.Errorf("delete %s: %w", topic, err)
	}
	if answer, ok := response.(*kmsg.DeleteTopicsResponse); ok {
		for _, t := range answer.Topics {
			if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
				return fmt.Errorf("delete %s in %s: %w", topic, cluster.Name(), err)
			}
		}
	}
	return nil
}

// load makes a load, lets a mirror carry it, and compares.
func (b *benchmark) load(ctx context.Context, w bench.Workload) (result benchResult, err error) {
	topic, err := b.create(ctx, w.Name, w.Partitions)
	if err != nil {
		return result, err
	}
	var showing sync.Mutex // Fill tells from several goroutines
	if err := w.Fill(ctx, b.source.Cluster, topic, func(n int64) {
		if showing.TryLock() {
			b.step(w.Name+": writing", n, w.Records)
			showing.Unlock()
		}
	}); err != nil {
		return result, err
	}
	b.say(w.Name + ": reading what was written")
	source, err := b.reader.Read(ctx, b.source.Cluster, topic, nil)
	if err != nil {
		return result, err
	}
	total := source.Total()
	result.Records, result.Bytes = total.Records, total.Bytes

	began := time.Now()
	mirror, err := b.startMirror(ctx, w.Name, topic)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, mirror.stop()) }()
	copied, err := bench.Watch{
		Cluster: b.target.Cluster, Topic: mirrored(topic), Records: total.Records, WarmUp: .1, Watched: b.watched(mirror), Alive: mirror.alive,
		Step: func(n int64) { b.step(w.Name+": mirroring", n, total.Records) },
	}.Run(ctx, began)
	if err != nil {
		return result, mirror.explain(err)
	}
	memory, _ := bench.MemoryOf(mirror.pid()) // not told: left out
	result.PeakMemory, result.First, result.Seconds = memory.Peak, copied.First.Seconds(), copied.Steady.Wall.Seconds()
	result.Rate = copied.Steady.Rate(total.Bytes) / 1e6
	result.RecordRate = copied.Steady.Rate(total.Records)
	if used, told := copied.Used["mirror"]; told && copied.Steady.Records > 0 {
		cpu := used.CPU().Seconds()
		result.CPU = cpu / (float64(total.Bytes) * copied.Steady.Share / 1e9)
		result.CPURecord = cpu * 1e6 / float64(copied.Steady.Records)
		result.Cores = cpu / copied.Steady.Wall.Seconds()
		result.Clusters = copied.Used["clusters"].CPU().Seconds() / copied.Steady.Wall.Seconds()
	}
	b.say(w.Name + ": comparing the copy")
	held, err := b.reader.Read(ctx, b.target.Cluster, mirrored(topic), source)
	if err != nil {
		return result, err
	}
	if what := source.Compare(held); what != "" {
		return result, fmt.Errorf("the copy is not what the source is: %s", what)
	}
	result.Verified = true
	return result, nil
}

// watched are the processes whose use is measured, where that can be told.
func (b *benchmark) watched(mirror *child) map[string]int {
	if _, err := bench.UsageOf(mirror.pid()); err != nil {
		return nil
	}
	all := map[string]int{"mirror": mirror.pid()}
	if b.clusters != nil {
		all["clusters"] = b.clusters.pid()
	}
	return all
}

// latency times the records of a steady load: at the source alone, and mirrored.
func (b *benchmark) latency(ctx context.Context) (result benchResult, err error) {
	topic, err := b.create(ctx, benchLatency, 1)
	if err != nil {
		return result, err
	}
	primer := bench.Workload{Name: benchLatency, RecordSize: 100, Records: 1, Partitions: 1}
	if err := primer.Fill(ctx, b.source.Cluster, topic, func(int64) {}); err != nil {
		return result, err
	}
	pulse := bench.Pulse{Rate: b.options.rate, Size: 1024, Warm: time.Second, Length: b.options.length / 3, Partitions: 1}
	pulse.Step = func(d time.Duration) {
		b.step(benchLatency+" of the source alone", int64(d), int64(pulse.Warm+pulse.Length))
	}
	direct, err := pulse.Run(ctx, b.source.Cluster, topic, b.source.Cluster, topic)
	if err != nil {
		return result, err
	}
	result.Direct = inMillis(direct)
	there, err := bench.Ends(ctx, b.source.Cluster, topic)
	if err != nil {
		return result, err
	}
	began := time.Now()
	mirror, err := b.startMirror(ctx, benchLatency, topic)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, mirror.stop()) }()
	copied, err := bench.Watch{Cluster: b.target.Cluster, Topic: mirrored(topic), Records: there, Watched: b.watched(mirror), Alive: mirror.alive}.Run(ctx, began)
	if err != nil {
		return result, mirror.explain(err)
	}
	result.First = copied.First.Seconds()
	pulse.Warm, pulse.Length = min(3*time.Second, b.options.length), b.options.length
	pulse.Step = func(d time.Duration) { b.step(benchLatency, int64(d), int64(pulse.Warm+pulse.Length)) }
	var before bench.Usage
	var from time.Time
	pulse.Counted = func() {
		from = time.Now()
		before, _ = bench.UsageOf(mirror.pid()) // not told: after is not, either
	}
	latency, err := pulse.Run(ctx, b.source.Cluster, topic, b.target.Cluster, mirrored(topic))
	if err != nil {
		return result, mirror.explain(err)
	}
	if after, err := bench.UsageOf(mirror.pid()); err == nil {
		used := after.Sub(before).CPU().Seconds()
		result.Cores, result.CPURecord = used/time.Since(from).Seconds(), used*1e6/float64(latency.Records)
	}
	memory, _ := bench.MemoryOf(mirror.pid()) // not told: left out
	result.PeakMemory, result.Latency, result.Records = memory.Peak, inMillis(latency), latency.Records
	source, err := b.reader.Read(ctx, b.source.Cluster, topic, nil)
	if err != nil {
		return result, err
	}
	held, err := b.reader.Read(ctx, b.target.Cluster, mirrored(topic), source)
	if err != nil {
		return result, err
	}
	if what := source.Compare(held); what != "" {
		return result, fmt.Errorf("the copy is not what the source is: %s", what)
	}
	result.Bytes, result.Verified = held.Total().Bytes, true
	return result, nil
}

// say and step tell on the terminal what is going on.
func (b *benchmark) say(text string) {
	b.progress.last = time.Time{} // a new line of work is shown at once
	b.progress.step(time.Now(), func(time.Duration) string { return text })
}

func (b *benchmark) step(text string, done, all int64) {
	b.progress.step(time.Now(), func(time.Duration) string {
		return fmt.Sprintf("%s: %d %%", text, min(100, done*100/max(1, all)))
	})
}

// file is a file of this run.
func (b *benchmark) file(name string) string { return filepath.Join(b.dir, name) }
