package replica_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"kmirror/broker/replica"
)

func open(t rapid.TB, log replica.Log, every int) *replica.Controller {
	t.Helper()
	c, err := replica.Open(context.Background(), replica.Options{Log: log, Brokers: []int32{1, 2, 3}, SnapshotEvery: every})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// step does one random thing to the cluster. Refusals are part of the game.
func step(t *rapid.T, c *replica.Controller) {
	ctx := context.Background()
	name := rapid.SampledFrom([]string{"a", "b", "a.b", "a_b", "orders", "__consumer_offsets", "bad name"}).Draw(t, "topic")
	value := rapid.SampledFrom([]string{"1", "60000", "x", "compact", "delete", "gzip"}).Draw(t, "value")
	key := rapid.SampledFrom([]string{"retention.ms", "cleanup.policy", "compression.type", "min.insync.replicas", "nonsense", "log.retention.ms"}).Draw(t, "key")
	op := replica.Op(rapid.IntRange(0, 3).Draw(t, "op"))
	change := []replica.ConfigChange{{Name: key, Op: op, Value: &value}}
	dry := rapid.IntRange(0, 9).Draw(t, "dry") == 0
	switch rapid.IntRange(0, 8).Draw(t, "command") {
	case 0, 1, 2:
		spec := replica.TopicSpec{Name: name, Partitions: int32(rapid.IntRange(-2, 5).Draw(t, "partitions")), ReplicationFactor: int16(rapid.IntRange(-1, 4).Draw(t, "factor"))}
		if rapid.Bool().Draw(t, "configured") {
			spec.Configs = map[string]*string{key: &value}
		}
		_, _ = c.CreateTopic(ctx, spec, dry)
	case 3:
		_, _ = c.DeleteTopic(ctx, name)
	case 4:
		_, _ = c.CreatePartitions(ctx, name, int32(rapid.IntRange(0, 9).Draw(t, "count")), nil, dry)
	case 5:
		_ = c.AlterTopicConfigs(ctx, name, change, dry)
	case 6:
		_ = c.AlterBrokerConfigs(ctx, int32(rapid.SampledFrom([]int{-1, 1, 2, 9}).Draw(t, "broker")), change, dry)
	case 7:
		_, _, _ = c.AllocateProducerIDs(ctx)
	case 8:
		_ = c.RenewLeadership(ctx, int32(rapid.IntRange(1, 3).Draw(t, "leader")))
	}
}

// TestReplayOfAnyPrefix: whatever happened, the first n records give the image
// that was published after the n-th, and the image in memory is that of all.
func TestReplayOfAnyPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := newMemLog()
		c := open(t, log, 1_000_000)
		then := map[int64]shape{0: shapeOf(c.Image())}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			step(t, c)
			then[c.Image().Offset()] = shapeOf(c.Image())
		}
		for n := int64(0); n <= log.end(); n++ {
			want, ok := then[n]
			if !ok {
				t.Fatalf("no image with %d records was ever published", n)
			}
			if diff := cmp.Diff(want, shapeOf(open(t, log.upTo(n), 0).Image()), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("replay of %d records of %d (-published +replayed):\n%s", n, log.end(), diff)
			}
		}
	})
}

// TestSnapshotsLoseNothing: with snapshots all the time, whether they free the
// old records or not, and with a crash between any two appends, what comes back
// is the image that was published last.
func TestSnapshotsLoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := newMemLog()
		log.keep = rapid.Bool().Draw(t, "trim lost")
		c := open(t, log, 2)
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			if rapid.IntRange(0, 7).Draw(t, "crash") == 0 {
				log.crash = rapid.IntRange(0, 1).Draw(t, "appends left")
				step(t, c)
				log.crash = -1
				want := shapeOf(c.Image())
				c = open(t, log, 2)
				got := shapeOf(c.Image())
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(shape{}, "Offset")); diff != "" {
					t.Fatalf("after a crash (-before +after):\n%s", diff)
				}
				continue
			}
			step(t, c)
		}
		again := shapeOf(open(t, log, 2).Image())
		if diff := cmp.Diff(shapeOf(c.Image()), again, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(shape{}, "Offset")); diff != "" {
			t.Fatalf("replay (-published +replayed):\n%s", diff)
		}
	})
}

// TestUnfinishedSnapshot: a snapshot of many chunks that was cut at each of
// them counts for nothing, and the next command writes a whole one first.
func TestUnfinishedSnapshot(t *testing.T) {
	log := newMemLog()
	log.keep = true
	c := open(t, log, 1_000_000)
	long := strings.Repeat("1:1,", 8000)
	for i := range 30 {
		spec := replica.TopicSpec{Name: fmt.Sprint(i), Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"leader.replication.throttled.replicas": &long}}
		if _, err := c.CreateTopic(t.Context(), spec, false); err != nil {
			t.Fatal(err)
		}
	}
	want := shapeOf(c.Image())
	before := len(log.chunks)
	c = open(t, log, 1) // 30 records are too many now: the next command begins with a snapshot
	if _, _, err := c.AllocateProducerIDs(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(log.chunks)-before < 4 {
		t.Fatalf("the snapshot was one of %d appends; the test needs several", len(log.chunks)-before)
	}
	for _, cut := range log.chunks[before+1 : len(log.chunks)-1] {
		crashed := log.upTo(cut)
		crashed.keep = true
		c := open(t, crashed, 1_000_000)
		got := shapeOf(c.Image())
		want.Offset = got.Offset
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("cut at %d (-want +got):\n%s", cut, diff)
		}
		if _, err := c.DeleteTopic(t.Context(), want.Topics[0].Name); err != nil {
			t.Fatal(err)
		}
		if got := len(open(t, crashed, 0).Image().Topics()); got != len(want.Topics)-1 {
			t.Errorf("cut at %d: %d topics after one was deleted, want %d", cut, got, len(want.Topics)-1)
		}
	}
}

func TestDamagedLog(t *testing.T) {
	log := newMemLog()
	c := open(t, log, 0)
	if _, err := c.CreateTopic(t.Context(), replica.TopicSpec{Name: "a", Partitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	good := log.records[0]
	for name, test := range map[string]struct {
		records [][]byte
		first   int64
		want    string
	}{
		"empty record":      {[][]byte{good, {}}, 0, "at offset 1"},
		"unknown kind":      {[][]byte{{99, 0}}, 0, "unknown kind 99"},
		"newer version":     {[][]byte{{1, 7}}, 0, "unknown version 7"},
		"cut":               {[][]byte{good[:len(good)-1]}, 0, "at offset 0: metadata record of kind 1: ends too early"},
		"bytes after it":    {[][]byte{append(append([]byte{}, good...), 0)}, 0, "has bytes after its end"},
		"twice":             {[][]byte{good, good}, 0, `at offset 1: topic "a" is created twice`},
		"beginning lost":    {[][]byte{good}, 7, "at offset 7: the log begins with a record of kind 1, not with a snapshot"},
		"of no topic":       {[][]byte{append([]byte{2, 0}, make([]byte, 16)...)}, 0, "is not known"},
		"snapshot's middle": {[][]byte{{10, 0, 2}}, 0, "snapshot ends after 0 records"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := replica.Open(t.Context(), replica.Options{Log: &memLog{first: test.first, records: test.records, crash: -1}, Brokers: []int32{1}})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "metadata log mem") {
				t.Errorf("got %v, want %q and the log's name", err, test.want)
			}
		})
	}
}
