package integration_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"kmirror/internal/bench"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// TestBenchMM2 is `make bench-mm2`: kmirror, MirrorMaker 2 as it comes and tuned,
// and a relay that knows nothing of Kafka carry the same topics between the
// same two Apache Kafka brokers, one after the other; every copy is read and
// compared; one table says what it took. It measures, and fails only when a
// copy is wrong or does not come about.
//
//	BENCH_WORKLOADS  what to run, by name, with commas (default: all)
//	BENCH_GB         the size of the largest load; the others follow (default 1; quick 0.2)
//	BENCH_ROUNDS     how often kmirror and the relay carry each load, for their median (default 3; quick 1)
//	BENCH_PEERS      which MirrorMaker 2 runs beside kmirror: all (default), tuned or none
//	BENCH_QUICK=1    smaller and shorter, and MirrorMaker 2 as it comes with two workloads only
//	BENCH_PORT       the first of 40 ports to use (default: any that are free)
//	BENCH_TIME       when this has passed, what is left is left out (default 25m)
//	BENCH_OUT        a directory for the table and the profiles (default: none is kept)
func TestBenchMM2(t *testing.T) {
	if os.Getenv("BENCH_MM2") == "" {
		t.Skip("a measurement of many minutes: make bench-mm2 runs it")
	}
	c := newContest(t)
	for _, one := range c.program() {
		if time.Now().After(c.deadline) {
			c.note("%s was left out: BENCH_TIME is over", one.name)
			continue
		}
		c.say("%s", one.name)
		one.run()
		c.sweep()
	}
	c.print()
}

// contest is one run of the comparison.
type contest struct {
	*world
	client    map[string]*kafka.Cluster
	broker    map[string]*process
	reader    *bench.Reader
	relay     string // its binary
	gigabytes float64
	rounds    int
	quick     bool
	peers     string // none, tuned or all
	deadline  time.Time
	began     time.Time
	entered   int // contestants so far, for their names
	rows      []row
	relays    []row // of the load that is carried now
	notes     []string
	profiles  []profile
	out       string
}

func newContest(t *testing.T) *contest {
	w := newWorld(t)
	c := &contest{world: w, client: map[string]*kafka.Cluster{}, broker: map[string]*process{}, reader: bench.NewReader(), began: time.Now()}
	c.quick = os.Getenv("BENCH_QUICK") != ""
	rounds, gigabytes := 3., 1.
	if c.quick {
		rounds, gigabytes = 1, .2
	}
	c.rounds = max(1, int(number(t, "BENCH_ROUNDS", rounds)))
	c.gigabytes = number(t, "BENCH_GB", gigabytes)
	if c.peers = environment("BENCH_PEERS", "all"); !slices.Contains([]string{"all", "tuned", "none"}, c.peers) {
		t.Fatalf("BENCH_PEERS is %q: it is all, tuned or none", c.peers)
	}
	limit, err := time.ParseDuration(environment("BENCH_TIME", "25m"))
	if err != nil {
		t.Fatalf("BENCH_TIME: %v", err)
	}
	c.deadline = c.began.Add(limit)
	if c.out = os.Getenv("BENCH_OUT"); c.out != "" {
		if err := os.MkdirAll(c.out, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if first := int(number(t, "BENCH_PORT", 0)); first > 0 {
		for i, name := range []string{"east", "east-controller", "west", "west-controller", "sink", "middle", "profile", "consul", "consul-lan", "consul-server", "rest-1", "rest-2"} {
			w.addresses[name] = net.JoinHostPort("127.0.0.1", strconv.Itoa(first+i))
		}
		nextPort.Store(int64(first + 12)) // for the instances' pages
	}
	built(t)
	c.relay = filepath.Join(w.dir, "relay")
	if out, err := exec.Command("go", "build", "-o", c.relay, "./parts/relay").CombinedOutput(); err != nil {
		t.Fatalf("build the relay: %v\n%s", err, out)
	}
	c.say("starting two Apache Kafka brokers")
	for _, name := range []string{"east", "west"} {
		c.broker[name] = w.kafka(name, "log.cleaner.backoff.ms=500", "log.retention.check.interval.ms=3600000", "file.delete.delay.ms=1000")
		cluster, err := kafka.New(&topology.Cluster{Name: name, Bootstrap: []string{w.addr(name)}}, kafka.Options{ClientID: "bench"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cluster.Close() })
		c.client[name] = cluster
	}
	c.warm()
	return c
}

// warm lets kmirror carry a small load that does not count: the brokers' JVMs
// have compiled what they run before anybody is measured, and their internal
// topics are there.
func (c *contest) warm() {
	c.say("warming up the brokers")
	w := bench.Workload{Name: "warm", Codec: wire.CodecLZ4, RecordSize: 1024, BatchSize: 64 << 10, Partitions: 4, Records: 150_000}
	topic := "load-warm"
	if err := c.fill(&w, topic); err != nil {
		c.t.Fatal(err)
	}
	source, err := c.reader.Read(c.ctx(time.Minute), c.client["east"], topic, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	for range 2 {
		if _, err := c.carry(w.Name, contestant{who: ours, start: c.startKmirror}, topic, source, nil); err != nil {
			c.t.Fatal(err)
		}
		c.sweep(topic)
	}
	c.sweep()
}

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func number(t testing.TB, name string, otherwise float64) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(environment(name, fmt.Sprint(otherwise)), 64)
	if err != nil || n < 0 {
		t.Fatalf("%s is %q, not a number", name, os.Getenv(name))
	}
	return n
}

// say tells who waits what is going on.
func (c *contest) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.0fs  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

// note is for below the table.
func (c *contest) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
	c.say(format, args...)
}

// failed notes what did not come about; the rest goes on. What a peer does not
// do is a result, not our failure.
func (c *contest) failed(workload, who string, err error) {
	if who == tuned || who == untuned {
		first, _, _ := strings.Cut(err.Error(), "\n")
		c.note("%s, %s: %s", workload, who, first)
	} else {
		c.t.Errorf("%s, %s: %v", workload, who, err)
	}
	c.rows = append(c.rows, row{workload: workload, who: who, failure: err.Error()})
}

// contestant is one of those who are compared.
type contestant struct {
	who string
	// start begins to mirror the topics of east that match into west, where they
	// get the prefix and a dot.
	start func(prefix, topics string) *process
	once  bool // one round is enough: it takes long, and varies little
}

const (
	ours     = "kmirror"
	tuned    = "MirrorMaker 2, tuned"
	untuned  = "MirrorMaker 2, as it comes"
	relayed  = "bare relay"
	directly = "no mirror"
)

// contestants are the mirrors that are compared by a workload.
func (c *contest) contestants(workload string) []contestant {
	all := []contestant{{who: ours, start: c.startKmirror}}
	if c.peers != "none" {
		all = append(all, contestant{who: tuned, once: true, start: func(prefix, topics string) *process { return c.startMM2(prefix, topics, true) }})
	}
	if c.peers == "all" && (!c.quick || workload == "lz4" || workload == "latency-1000") {
		all = append(all, contestant{who: untuned, once: true, start: func(prefix, topics string) *process { return c.startMM2(prefix, topics, false) }})
	}
	return all
}

// kmirrorFlow is the mirror.yaml of an instance whose flow has the prefix.
func kmirrorFlow(prefix, topics string) string {
	return fmt.Sprintf(`
clusters:
  %[1]s: {bootstrap: [{{addr "east"}}]}
  west: {bootstrap: [{{addr "west"}}]}
flows:
  - {from: %[1]s, to: west, topics: ["%[2]s"]}
`, prefix, topics)
}

func (c *contest) startKmirror(prefix, topics string) *process {
	d := c.daemon(prefix, kmirrorFlow(prefix, topics))
	return start(c.t, c.dir, prefix, nil, built(c.t), "run", "--quiet", "--config", d.config, "--pprof", c.addr("profile"))
}

// startMM2 starts a MirrorMaker 2 in dedicated mode, with the options of the
// JVM that Kafka's own scripts give it.
func (c *contest) startMM2(prefix, topics string, tuned bool, settings ...string) *process {
	properties := []string{
		"clusters = " + prefix + ", west",
		prefix + ".bootstrap.servers = " + c.addr("east"),
		"west.bootstrap.servers = " + c.addr("west"),
		prefix + "->west.enabled = true",
		"west->" + prefix + ".enabled = false",
		prefix + "->west.topics = " + topics,
		"refresh.topics.interval.seconds = 5",
		"emit.checkpoints.interval.seconds = 1",
		"sync.group.offsets.enabled = true",
	}
	properties = append(properties, onOneBroker()...)
	if tuned {
		properties = append(properties,
			"west.producer.compression.type = lz4",
			"west.producer.batch.size = 262144",
			"west.producer.linger.ms = 10",
			prefix+".consumer.max.poll.records = 5000",
			prefix+".consumer.fetch.min.bytes = 65536",
			prefix+".consumer.max.partition.fetch.bytes = 4194304",
			"tasks.max = 2",
		)
	}
	c.entered++ // two of them may have one prefix
	file := filepath.Join(c.dir, fmt.Sprintf("%s-%d.properties", prefix, c.entered))
	if err := os.WriteFile(file, []byte(strings.Join(append(properties, settings...), "\n")+"\n"), 0o644); err != nil {
		c.t.Fatal(err)
	}
	java, jars := classpath(c.t)
	return start(c.t, c.dir, prefix, nil, java, "-Xms256m", "-Xmx1g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
		"-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-cp", jars, "org.apache.kafka.connect.mirror.MirrorMaker", file)
}

// prefix is a new name for the source, and thus new topics at the target.
func (c *contest) prefix() string {
	c.entered++
	return fmt.Sprintf("m%d", c.entered)
}

// alive is an error when a process has ended.
func alive(p *process) func() error {
	return func() error {
		if p.running() {
			return nil
		}
		return fmt.Errorf("%s ended: %w\n%s", p.name, errors.Join(errors.New("it should not"), p.err), p.tail(15))
	}
}

// sweep deletes every topic but Kafka's own from both brokers, so that the next
// load finds them as they were.
func (c *contest) sweep(but ...string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, cluster := range []string{"east", "west"} {
		client := c.world.client(cluster)
		admin := kadm.NewClient(client)
		topics, err := admin.ListTopics(ctx)
		if err != nil {
			c.t.Errorf("list the topics of %s: %v", cluster, err)
		}
		names := slices.DeleteFunc(topics.Names(), func(name string) bool { return slices.Contains(but, name) })
		if len(names) > 0 {
			if _, err := admin.DeleteTopics(ctx, names...); err != nil {
				c.t.Errorf("delete topics of %s: %v", cluster, err)
			}
		}
		client.Close()
	}
}

// processors is how many the machine has for us.
func processors() float64 { return float64(runtime.NumCPU()) }
