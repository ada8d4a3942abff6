package broker

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"kmirror/internal/wire"
)

// Rewriting a partition of __transaction_state leaves what was written last, also
// after a restart.
func TestRewrittenTransactionLog(t *testing.T) {
	dir := t.TempDir()
	open := func() (transactionLog, func()) {
		node, err := Open(Config{Cluster: "test", NodeID: 1, Listen: "127.0.0.1:0", DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return transactionLog{node}, func() {
			if err := node.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	record := func(i int) wire.Record {
		return wire.Record{Timestamp: int64(i), Key: fmt.Append(nil, "key", i), Value: fmt.Append(nil, "value", i)}
	}
	read := func(l transactionLog) (out []string) {
		if err := l.Read(t.Context(), 3, func(r wire.Record) error {
			out = append(out, fmt.Sprint(r.Offset, " ", string(r.Key)))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	l, stop := open()
	for i := range 10 {
		if errs := l.Append(context.Background(), 3, []wire.Record{record(i)}); errs[0] != nil {
			t.Fatal(errs[0])
		}
	}
	if err := l.Rewrite(t.Context(), 3, []wire.Record{record(20), record(21)}); err != nil {
		t.Fatal(err)
	}
	want := []string{"10 key20", "11 key21"}
	if got := read(l); !slices.Equal(got, want) {
		t.Errorf("the log has %v, want %v", got, want)
	}
	stop()
	l, stop = open()
	defer stop()
	if got := read(l); !slices.Equal(got, want) {
		t.Errorf("after a restart the log has %v, want %v", got, want)
	}
}
