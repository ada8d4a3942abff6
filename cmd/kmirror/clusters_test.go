package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
)

// twoClusters starts two in-memory Kafka clusters and writes a configuration for them.
func twoClusters(t *testing.T) (path string, east, west *kfake.Cluster) {
	t.Helper()
	start := func(id string, topics ...string) *kfake.Cluster {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID(id), kfake.SeedTopics(3, topics...), kfake.SeedTopics(1, "empty"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	east, west = start("east-id", "orders", "__internal"), start("west-id", "east.orders")
	return config(t, twoClustersConfig(east.ListenAddrs()[0], west.ListenAddrs()[0])), east, west
}

func twoClustersConfig(east, west string) string {
	return fmt.Sprintf("clusters:\n  east: {bootstrap: [%q]}\n  west: {bootstrap: [%q]}\nflows:\n- {from: east, to: west}\n", east, west)
}

func sortedLines(s string) []string {
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	slices.Sort(lines)
	return lines
}

func TestProduceAndConsume(t *testing.T) {
	path, _, _ := twoClusters(t)
	var input strings.Builder
	var want []string
	for i := range 300 {
		fmt.Fprintf(&input, "key-%d:value %d\n", i, i)
		want = append(want, fmt.Sprintf("key-%d|value %d", i, i))
	}
	slices.Sort(want)
	kmirror(t, input.String(), "produce", "east", "orders", "-k", ":", "-H", "source=test", "--compression", "lz4", "-c", path).
		want(t, exitOK, "300 records (", "into orders of east, 3 partitions")

	for _, way := range [][]string{{"--until-end"}, {"--count", "300"}} {
		o := kmirror(t, "", append([]string{"consume", "east", "orders", "--format", "kv", "-k", "|", "-c", path}, way...)...).want(t, exitOK)
		if diff := cmp.Diff(want, sortedLines(o.out)); diff != "" {
			t.Errorf("%v: records differ (-want +got):\n%s", way, diff)
		}
	}
	var one recordJSON
	o := kmirror(t, "", "consume", "east", "orders", "-n", "1", "-o", "json", "-c", path).want(t, exitOK)
	if err := json.Unmarshal([]byte(o.out), &one); err != nil || one.Topic != "orders" || one.Key == nil || len(one.Headers) != 1 || *one.Headers[0].Value != "test" {
		t.Errorf("%v: %s", err, o.out)
	}
	if o := kmirror(t, "", "consume", "east", "orders", "--from", "-2", "-e", "-c", path).want(t, exitOK); strings.Count(o.out, "\n") != 6 {
		t.Errorf("the last 2 of 3 partitions are %q", o.out)
	}
	if o := kmirror(t, "", "consume", "east", "orders", "--from", "1h", "-e", "-c", path).want(t, exitOK); strings.Count(o.out, "\n") != 300 {
		t.Errorf("since an hour ago there are %d records", strings.Count(o.out, "\n"))
	}
	if o := kmirror(t, "", "consume", "east", "orders", "-p", "1", "--from", "3", "-n", "1", "-o", "json", "-c", path).want(t, exitOK); !strings.Contains(o.out, `"partition":1,"offset":3,`) {
		t.Errorf("partition 1 at 3 is %s", o.out)
	}
	kmirror(t, "", "consume", "east", "orders", "--from", "latest", "-e", "-c", path).want(t, exitOK)
	kmirror(t, "", "consume", "east", "empty", "-e", "-c", path).want(t, exitOK)
	kmirror(t, "", "consume", "east", "orders", "--from", "100000", "-e", "-c", path).want(t, exitNotFound, "offset 100000 is not there")
	kmirror(t, "", "consume", "east", "orders", "-p", "7", "-e", "-c", path).want(t, exitNotFound, "it has 0 to 2")
	kmirror(t, "", "consume", "east", "ordres", "-e", "-c", path).want(t, exitNotFound, "kmirror topics east")
}

func TestProduceFromFileToOnePartition(t *testing.T) {
	path, _, _ := twoClusters(t)
	lines := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(lines, []byte("a:1\nb:\nc"), 0o600); err != nil {
		t.Fatal(err)
	}
	// The third line has no key; what stands before it is written all the same.
	kmirror(t, "", "produce", "east", "orders", "-f", lines, "-k", ":", "-p", "2", "--empty-as-null", "-c", path).
		want(t, exitFailure, "line 3 has no key separator", "2 records")
	o := kmirror(t, "", "consume", "east", "orders", "-e", "-o", "json", "-c", path).want(t, exitOK)
	var got []recordJSON
	for line := range strings.SplitSeq(strings.TrimSpace(o.out), "\n") {
		var r recordJSON
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	if len(got) != 2 || got[0].Partition != 2 || *got[0].Value != "1" || got[1].Value != nil || *got[1].Key != "b" {
		t.Errorf("got %s", o.out)
	}
	kmirror(t, "x\n", "produce", "east", "orders", "-p", "9", "-c", path).want(t, exitNotFound, "it has 0 to 2")
	kmirror(t, "x\n", "produce", "east", "nowhere", "-c", path).want(t, exitNotFound, "create it first")
	o = kmirror(t, "x\n", "produce", "east", "orders", "-o", "json", "-c", path).want(t, exitOK)
	var report produced
	if err := json.Unmarshal([]byte(o.out), &report); err != nil || report.Records != 1 || report.Bytes != 1 {
		t.Errorf("%v: %s", err, o.out)
	}
}

// A group reads in two ways and never sees a record twice, nor misses one.
func TestConsumeInAGroup(t *testing.T) {
	path, _, _ := twoClusters(t)
	var input strings.Builder
	var want []string
	for i := range 90 {
		fmt.Fprintf(&input, "%02d\n", i)
		want = append(want, fmt.Sprintf("%02d", i))
	}
	kmirror(t, input.String(), "produce", "east", "orders", "-c", path).want(t, exitOK)
	var read string
	for _, way := range [][]string{{"-n", "10"}, {"-n", "25", "-e"}, {"-n", "20"}, {"-e"}, {"-e"}} {
		read += kmirror(t, "", append([]string{"consume", "east", "orders", "-g", "billing", "-c", path}, way...)...).want(t, exitOK).out
	}
	if diff := cmp.Diff(want, sortedLines(read)); diff != "" {
		t.Errorf("the group's records differ (-want +got):\n%s", diff)
	}
	o := kmirror(t, "", "groups", "east", "-c", path).want(t, exitOK, "billing")
	if got := strings.Count(o.out, "Empty"); got != 3 {
		t.Errorf("groups shows %d rows:\n%s", got, o.out)
	}
	var rows []groupRow
	o = kmirror(t, "", "groups", "east", "-g", "billing", "-o", "json", "-c", path).want(t, exitOK)
	if err := json.Unmarshal([]byte(o.out), &rows); err != nil {
		t.Fatal(err)
	}
	var committed int64
	for _, r := range rows {
		committed += r.Offset
		if r.Lag != 0 || r.Topic != "orders" {
			t.Errorf("row %+v", r)
		}
	}
	if committed != 90 {
		t.Errorf("committed %d of 90", committed)
	}
	kmirror(t, "", "groups", "east", "-g", "nobody", "-c", path).want(t, exitNotFound, `no group "nobody"`)
	kmirror(t, "", "groups", "west", "-c", path).want(t, exitOK, "no group has committed offsets")
	kmirror(t, "", "groups", "east->west", "-c", path).want(t, exitOK, "billing", "waiting")
	kmirror(t, "", "translate", "east", "west", "billing", "-c", path).want(t, exitNotFound, "nothing was mirrored into west yet")
}

func TestConsumeEndsCleanlyWhenToldTo(t *testing.T) {
	path, _, _ := twoClusters(t)
	kmirror(t, "one\n", "produce", "east", "orders", "-c", path).want(t, exitOK)
	for _, more := range [][]string{nil, {"-g", "g"}} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		o := kmirrorUntil(ctx, t, "", append([]string{"consume", "east", "orders", "-c", path}, more...)...)
		cancel()
		if o.out != "one\n" || o.code == exitFailure {
			t.Errorf("%v: %+v", more, o)
		}
	}
}

func TestTopics(t *testing.T) {
	path, _, _ := twoClusters(t)
	kmirror(t, "a\nb\n", "produce", "east", "orders", "-c", path).want(t, exitOK)
	o := kmirror(t, "", "topics", "-c", path).want(t, exitOK)
	const want = `CLUSTER  TOPIC        PARTITIONS  REPLICAS  RECORDS  MIRRORED
east     empty                 1         1        0  to west/east.empty
east     orders                3         1        2  to west/east.orders
west     east.orders           3         1        0  from east/orders
west     empty                 1         1        0
`
	if diff := cmp.Diff(want, o.out); diff != "" {
		t.Errorf("topics differ (-want +got):\n%s", diff)
	}
	kmirror(t, "", "topics", "east", "--all", "-c", path).want(t, exitOK, "__internal")
	var rows []topicRow
	o = kmirror(t, "", "topics", "west", "-o", "json", "-c", path).want(t, exitOK)
	if err := json.Unmarshal([]byte(o.out), &rows); err != nil || len(rows) != 2 || len(rows[0].Detail) != 3 {
		t.Errorf("%v: %s", err, o.out)
	}
}

// A cluster that is away is named, with what to do; the others are shown.
func TestUnreachableCluster(t *testing.T) {
	_, east, _ := twoClusters(t)
	path := config(t, twoClustersConfig(east.ListenAddrs()[0], "127.0.0.1:1"))
	o := kmirror(t, "", "topics", "-c", path, "--timeout", "1s").want(t, exitUnreachable, "cluster west does not answer at 127.0.0.1:1", "check its addresses")
	if !strings.Contains(o.out, "orders") {
		t.Errorf("east is not shown:\n%s", o.out)
	}
	for _, args := range [][]string{{"consume", "west", "t"}, {"produce", "west", "t"}, {"groups", "west"}, {"translate", "east", "west", "g"}, {"check", "--connect"}} {
		kmirror(t, "x\n", append(args, "-c", path, "--timeout", "1s")...).want(t, exitUnreachable, "west", "127.0.0.1:1")
	}
}

func TestCheckConnect(t *testing.T) {
	path, east, west := twoClusters(t)
	kmirror(t, "", "check", "--connect", "-c", path).want(t, exitOK, "east-id", "west-id")

	if err := errors.Join(east.CreateTopic(strings.Repeat("x", 248), 1, nil), west.CreateTopic("east.empty", 5, nil)); err != nil {
		t.Fatal(err)
	}
	kmirror(t, "", "check", "--connect", "-c", path).want(t, exitFailure, "its name has 253 characters and Kafka takes 249; exclude it", "note: east->west: topic empty", "has 5 partitions, the source 1")

	twice := config(t, twoClustersConfig(east.ListenAddrs()[0], otherDoor(t, east.ListenAddrs()[0])))
	kmirror(t, "", "check", "--connect", "-c", twice).want(t, exitUsage, "east", "west", "same cluster as east", "east-id")
}

// otherDoor is another address that leads to the same place.
func otherDoor(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", address)
			if err != nil {
				here.Close()
				continue
			}
			go func() { _, _ = io.Copy(there, here); there.Close() }()
			go func() { _, _ = io.Copy(here, there); here.Close() }()
		}
	}()
	return l.Addr().String()
}
