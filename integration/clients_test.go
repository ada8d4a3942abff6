package integration_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// client is a franz-go client of the cluster at the named address.
func (w *world) client(cluster string, options ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(w.addr(cluster), ",")...),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.MetadataMinAge(100 * time.Millisecond),
	}, options...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(client.Close)
	return client
}

func (w *world) admin(cluster string) *kadm.Client {
	w.t.Helper()
	return kadm.NewClient(w.client(cluster))
}

// create makes a topic and waits until the cluster tells of it.
func (w *world) create(cluster, topic string, partitions int32, configs ...string) {
	w.t.Helper()
	w.createReplicated(cluster, topic, partitions, 1, configs...)
}

// createReplicated is create with so many replicas.
func (w *world) createReplicated(cluster, topic string, partitions int32, replicas int16, configs ...string) {
	w.t.Helper()
	settings := map[string]*string{}
	for _, config := range configs {
		key, value, _ := strings.Cut(config, "=")
		settings[key] = &value
	}
	admin := w.admin(cluster)
	if _, err := admin.CreateTopic(w.ctx(30*time.Second), partitions, replicas, settings, topic); err != nil {
		w.t.Fatalf("create %s in %s: %v", topic, cluster, err)
	}
	eventually(w.t, 20*time.Second, "topic "+topic+" in "+cluster, func() error {
		topics, err := admin.ListTopics(w.ctx(5*time.Second), topic)
		if err != nil {
			return err
		}
		if topics[topic].Err != nil {
			return topics[topic].Err
		}
		if got := len(topics[topic].Partitions); got != int(partitions) {
			return fmt.Errorf("%d partitions", got)
		}
		return nil
	})
}

// ctx is a context that ends with the test, or when the time is up.
func (w *world) ctx(timeout time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	w.t.Cleanup(cancel)
	return ctx
}

// ends are the end offsets of a topic's partitions; nil while it is not there.
func (w *world) ends(admin *kadm.Client, topic string) map[int32]int64 {
	listed, err := admin.ListEndOffsets(w.ctx(10*time.Second), topic)
	if err != nil || listed.Error() != nil {
		return nil
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends
}

// read reads a topic from its start to its present end, at read_committed, and
// returns the records of each partition in the order of the log. Control
// records count for the way but are not returned.
func (w *world) read(cluster, topic string) map[int32][]*kgo.Record {
	w.t.Helper()
	admin := w.admin(cluster)
	ends := w.ends(admin, topic)
	if ends == nil {
		w.t.Fatalf("read %s from %s: no such topic", topic, cluster)
	}
	starts, err := admin.ListStartOffsets(w.ctx(10*time.Second), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	from, left := map[int32]kgo.Offset{}, 0
	starts.Each(func(o kadm.ListedOffset) {
		from[o.Partition] = kgo.NewOffset().At(o.Offset)
		if o.Offset < ends[o.Partition] {
			left++
		}
	})
	client := w.client(cluster, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(200*time.Millisecond))
	defer client.Close()
	records := map[int32][]*kgo.Record{}
	ctx := w.ctx(2 * time.Minute)
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			w.t.Fatalf("read %s from %s: %d partitions not read to their ends %v", topic, cluster, left, ends)
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			w.t.Fatalf("read %s/%d from %s: %v", topic, partition, cluster, err)
		})
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset >= ends[r.Partition] {
				return
			}
			if !r.Attrs.IsControl() {
				records[r.Partition] = append(records[r.Partition], r)
			}
			if r.Offset == ends[r.Partition]-1 {
				left--
			}
		})
	}
	return records
}

// count is how many records there are in all partitions.
func count(records map[int32][]*kgo.Record) (n int) {
	for _, partition := range records {
		n += len(partition)
	}
	return n
}

// command runs a program with standard input and returns its standard output.
func command(t testing.TB, dir, stdin, program string, args ...string) string {
	t.Helper()
	out, err := tryCommand(t, dir, stdin, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryCommand(t testing.TB, dir, stdin, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		shown := strings.Join(args, " ")
		if len(shown) > 300 {
			shown = shown[:300] + "..."
		}
		return string(out), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(program), shown, err, out, stderr.String())
	}
	return string(out), nil
}

// kcat runs kcat against a cluster.
func (w *world) kcat(cluster, stdin string, args ...string) string {
	w.t.Helper()
	return command(w.t, w.dir, stdin, tool(w.t, "kcat", "kcat"), append([]string{"-b", w.addr(cluster)}, args...)...)
}

// python runs one of our scripts in testdata with the Python of parts/clients.sh.
func (w *world) python(script string, args ...string) string {
	w.t.Helper()
	file, err := filepath.Abs(filepath.Join("testdata", script))
	if err != nil {
		w.t.Fatal(err)
	}
	return command(w.t, w.dir, "", part(w.t, "clients"), append([]string{file}, args...)...)
}
