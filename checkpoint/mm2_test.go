package checkpoint_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
	"kmirror/topology"
)

func flowEastWest(t *testing.T) *topology.Flow {
	t.Helper()
	flow, err := topology.NewFlow("east", "west", nil)
	if err != nil {
		t.Fatal(err)
	}
	return flow
}

// The vectors were written and read byte for byte by the Java classes of
// Apache Kafka 4.1.1.
func TestMirrorMakerVectors(t *testing.T) {
	for _, v := range []struct {
		record     any
		key, value string
	}{
		{checkpoint.OffsetSync{Topic: "t", Partition: 2, Upstream: 100, Downstream: 200}, "0001 74 00000002", "0000000000000064 00000000000000c8"},
		{checkpoint.Checkpoint{Group: "g", Topic: "A.t", Partition: 2, Upstream: 100, Downstream: 200}, "0001 67 0003 412e74 00000002", "0000 0000000000000064 00000000000000c8 0000"},
		{checkpoint.Heartbeat{Source: "A", Target: "B", Millis: 1000}, "0001 41 0001 42", "0000 00000000000003e8"},
		{checkpoint.OffsetSync{Topic: "orders", Upstream: 1 << 40, Downstream: 1<<33 + 5}, "0006 6f7264657273 00000000", "0000010000000000 0000000200000005"},
		{checkpoint.Checkpoint{Group: "grüße", Topic: "A.orders", Partition: 11, Upstream: 1 << 40, Downstream: 1<<33 + 6, Metadata: "m1"}, "0007 6772c3bcc39f65 0008 412e6f7264657273 0000000b", "0000 0000010000000000 0000000200000006 0002 6d31"},
		{checkpoint.Heartbeat{Source: "us-east", Target: "eu-west", Millis: 1700000000000}, "0007 75732d65617374 0007 65752d77657374", "0000 0000018bcfe56800"},
	} {
		want := wire.Record{Key: unhex(t, v.key), Value: unhex(t, v.value)}
		encode, decode := mm2(v.record)
		got := encode()
		if diff := cmp.Diff([2][]byte{want.Key, want.Value}, [2][]byte{got.Key, got.Value}); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", v.record, diff)
		}
		for _, tail := range [][]byte{nil, {1, 2, 3}} { // trailing bytes are ignored
			again, err := decode(wire.Record{Key: append(want.Key, tail...), Value: append(want.Value, tail...)})
			if err != nil || again != v.record {
				t.Errorf("got %+v, %v; want %+v", again, err, v.record)
			}
		}
		for n := range want.Value {
			if _, err := decode(wire.Record{Key: want.Key, Value: want.Value[:n]}); err == nil {
				t.Errorf("%+v: a value of %d bytes was taken", v.record, n)
			}
		}
		for n := range want.Key {
			if _, err := decode(wire.Record{Key: want.Key[:n], Value: want.Value}); err == nil {
				t.Errorf("%+v: a key of %d bytes was taken", v.record, n)
			}
		}
	}
}

// mm2 returns what writes a record of MirrorMaker 2 and what reads its kind.
func mm2(record any) (encode func() wire.Record, decode func(wire.Record) (any, error)) {
	switch r := record.(type) {
	case checkpoint.OffsetSync:
		return func() wire.Record { return checkpoint.EncodeOffsetSync(r) }, func(rec wire.Record) (any, error) { return checkpoint.DecodeOffsetSync(rec) }
	case checkpoint.Checkpoint:
		return func() wire.Record { return checkpoint.EncodeCheckpoint(r) }, func(rec wire.Record) (any, error) { return checkpoint.DecodeCheckpoint(rec) }
	case checkpoint.Heartbeat:
		return func() wire.Record { return checkpoint.EncodeHeartbeat(r) }, func(rec wire.Record) (any, error) { return checkpoint.DecodeHeartbeat(rec) }
	}
	panic("not a record of MirrorMaker 2")
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzMirrorMakerRecords(f *testing.F) {
	for _, r := range []any{checkpoint.OffsetSync{Topic: "t"}, checkpoint.Checkpoint{Group: "g", Topic: "t", Metadata: "m"}, checkpoint.Heartbeat{Source: "a", Target: "b"}} {
		encode, _ := mm2(r)
		rec := encode()
		f.Add(rec.Key, rec.Value)
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		for _, kind := range []any{checkpoint.OffsetSync{}, checkpoint.Checkpoint{}, checkpoint.Heartbeat{}} {
			_, decode := mm2(kind)
			got, err := decode(wire.Record{Key: key, Value: value})
			if err != nil {
				continue
			}
			encode, decode := mm2(got)
			if again, err := decode(encode()); err != nil || again != got {
				t.Fatalf("%+v was read again as %+v, %v", got, again, err)
			}
		}
	})
}
