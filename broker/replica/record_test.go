package replica

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// examples are one record of every kind.
func examples() []record {
	id := ID{0: 0xa0, 6: 0x40, 8: 0x80, 15: 0x0f}
	created := []Partition{{Leader: 1, Replicas: []int32{1, 2}, ISR: []int32{1, 2}}, {Leader: 2, Replicas: []int32{2, 1}, ISR: []int32{2, 1}}}
	return []record{
		{kind: topicCreated, name: "orders", id: id, partitions: created, configs: map[string]string{"retention.ms": "1000", "cleanup.policy": "compact"}},
		{kind: topicDeleted, id: id},
		{kind: partitionsAdded, id: id, partitions: created[:1]},
		{kind: topicConfigured, id: id, configs: map[string]string{"segment.bytes": "1048576"}},
		{kind: topicConfigured, id: id},
		{kind: brokerConfigured, broker: AnyBroker, configs: map[string]string{"log.retention.ms": "5"}},
		{kind: producerIDs, number: 3000},
		{kind: leadershipRenewed, broker: 1},
		{kind: snapshotBegins},
		{kind: snapshotTopic, name: "orders", id: id, partitions: []Partition{{Leader: -1, LeaderEpoch: 7, Replicas: []int32{1, 2}, ISR: []int32{2}}}},
		{kind: snapshotEnds, number: 4},
	}
}

func TestRecordBytes(t *testing.T) {
	var got strings.Builder
	for _, r := range examples() {
		b := r.encode()
		fmt.Fprintf(&got, "# kind %d\n%s\n", r.kind, hex.EncodeToString(b))
		back, err := decodeRecord(b)
		if err != nil {
			t.Fatalf("kind %d: %v", r.kind, err)
		}
		if diff := cmp.Diff(r, back, cmp.AllowUnexported(record{})); diff != "" {
			t.Errorf("kind %d there and back (-want +got):\n%s", r.kind, diff)
		}
	}
	const golden = "testdata/records.golden"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// FuzzDecodeRecord: no bytes make the decoder panic or promise more than they
// hold, and what it accepts it can write again.
func FuzzDecodeRecord(f *testing.F) {
	for _, r := range examples() {
		f.Add(r.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		again, err := decodeRecord(r.encode())
		if err != nil {
			t.Fatalf("its own encoding: %v", err)
		}
		if !bytes.Equal(again.encode(), r.encode()) {
			t.Fatalf("%x is written as %x, then as %x", b, r.encode(), again.encode())
		}
		p := &replayer{image: newImage()}
		_ = p.apply(0, r)
		_ = p.apply(1, r)
	})
}
