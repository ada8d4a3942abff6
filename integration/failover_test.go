package integration_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestFailover lets a group read half of a topic in east in uneven steps and
// stop; the same group in west reads exactly the other half.
func TestFailover(t *testing.T) {
	for _, client := range []string{"franz-go", "kafka-python", "confluent-kafka"} {
		t.Run(client, func(t *testing.T) {
			w := newWorld(t)
			d := w.daemon("main", serverOnly)
			d.start()
			d.ready(readyWithin)

			// The first records expire before anybody mirrors, so that a record's
			// offset in west is not its offset in east.
			const each, expired = 1000, 137
			h := newHistory("orders", 3, 300)
			w.create("east", "orders", 3)
			w.write("east", h, each)
			w.expire("east", "orders", expired)
			d.stop(20 * time.Second)
			d.configure(twoClusters)
			d.start()
			d.ready(readyWithin)
			want, _ := w.mirrored("east", "orders", "west", "east.orders")

			// Uneven steps: a different share of each partition.
			const group = "billing"
			east := w.consume(client, "east", "orders", group, map[int32]int{0: 411, 1: 7, 2: 860})
			d.inStep(w, group, "orders", "east.orders")
			west := w.consume(client, "west", "east.orders", group, nil)

			for partition := range int32(3) {
				_, first, err := identity(want[partition][0])
				if err != nil {
					t.Fatal(err)
				}
				got := append(append([]int{}, east[partition]...), west[partition]...)
				if len(got) != each-expired {
					t.Errorf("partition %d: %d records in east and %d in west, want %d in all", partition, len(east[partition]), len(west[partition]), each-expired)
				}
				for i, number := range got {
					if number != first+i {
						t.Errorf("partition %d: record %d after %d (the group read %d in east)", partition, number, first+i-1, len(east[partition]))
						break
					}
				}
			}
			if t.Failed() {
				t.Log(d.mustKmirror("translate", "east", "west", group))
			}
		})
	}
}

// expire deletes the records of every partition before the offset.
func (w *world) expire(cluster, topic string, before int64) {
	w.t.Helper()
	admin := w.admin(cluster)
	offsets := kadm.Offsets{}
	for partition := range w.ends(admin, topic) {
		offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: before})
	}
	deleted, err := admin.DeleteRecords(w.ctx(20*time.Second), offsets)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		w.t.Fatalf("delete the first %d records of %s in %s: %v", before, topic, cluster, err)
	}
}

// committed are a group's offsets in a topic.
func (w *world) committed(admin *kadm.Client, group, topic string) map[int32]int64 {
	offsets := map[int32]int64{}
	fetched, err := admin.FetchOffsets(w.ctx(10*time.Second), group)
	if err != nil {
		return offsets
	}
	fetched.Each(func(o kadm.OffsetResponse) {
		if o.Topic == topic {
			offsets[o.Partition] = o.At
		}
	})
	return offsets
}

// place says which record a reader at an offset gets next, by its number.
func place(records []*kgo.Record, offset int64) string {
	for _, r := range records {
		if r.Offset >= offset {
			_, number, _ := identity(r)
			return "before #" + strconv.Itoa(number)
		}
	}
	return "at the end"
}

// inStep waits until the group stands in west where it stands in east: at the
// same record, found by its number, which the daemon does not know of.
func (d *daemon) inStep(w *world, group, topic, mirror string) {
	w.t.Helper()
	source, target := w.read("east", topic), w.read("west", mirror)
	east, west := w.admin("east"), w.admin("west")
	eventually(w.t, 30*time.Second, "group "+group+" in step", func() error {
		there := w.committed(west, group, mirror)
		for partition, offset := range w.committed(east, group, topic) {
			want := place(source[partition], offset)
			at, known := there[partition]
			if !known {
				return fmt.Errorf("partition %d: nothing committed in west, want %s", partition, want)
			}
			if got := place(target[partition], at); got != want {
				return fmt.Errorf("partition %d: stands %s in west, want %s", partition, got, want)
			}
		}
		return nil
	})
}

// consume reads a topic as the only member of a group, commits, and returns the
// numbers read of each partition. It takes so many of each partition as upTo
// says, or all where upTo is nil.
func (w *world) consume(library, cluster, topic, group string, upTo map[int32]int) map[int32][]int {
	w.t.Helper()
	if library == "franz-go" {
		return w.consumeHere(cluster, topic, group, upTo)
	}
	limits := "all"
	if upTo != nil {
		var each []string
		for partition, n := range upTo {
			each = append(each, fmt.Sprintf("%d:%d", partition, n))
		}
		limits = strings.Join(each, ",")
	}
	var read map[string][]int
	out := w.python("group.py", library, w.addr(cluster), topic, group, limits)
	if err := json.Unmarshal([]byte(out), &read); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	numbers := map[int32][]int{}
	for partition, list := range read {
		n, err := strconv.Atoi(partition)
		if err != nil {
			w.t.Fatal(err)
		}
		numbers[int32(n)] = list
	}
	return numbers
}

func (w *world) consumeHere(cluster, topic, group string, upTo map[int32]int) map[int32][]int {
	w.t.Helper()
	admin := w.admin(cluster)
	ends, begun := w.ends(admin, topic), w.committed(admin, group, topic)
	client := w.client(cluster, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond))
	defer client.Close()
	numbers, last := map[int32][]int{}, map[int32]*kgo.Record{}
	done := func() bool {
		for partition, end := range ends {
			if upTo != nil && len(numbers[partition]) < upTo[partition] {
				return false
			}
			at := begun[partition]
			if last[partition] != nil {
				at = last[partition].Offset + 1
			}
			if upTo == nil && at < end {
				return false
			}
		}
		return true
	}
	ctx := w.ctx(time.Minute)
	for !done() {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("consume %s in %s as %s: %v; have %d records", topic, cluster, group, err, len(last))
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if upTo != nil && len(numbers[r.Partition]) >= upTo[r.Partition] {
				return
			}
			_, number, err := identity(r)
			if err != nil {
				w.t.Fatal(err)
			}
			numbers[r.Partition] = append(numbers[r.Partition], number)
			last[r.Partition] = r
		})
	}
	var commit []*kgo.Record
	for _, r := range last {
		commit = append(commit, r)
	}
	if err := client.CommitRecords(ctx, commit...); err != nil {
		w.t.Fatalf("commit %s in %s: %v", group, cluster, err)
	}
	return numbers
}
