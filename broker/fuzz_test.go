package broker

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// FuzzHandle dispatches arbitrary frames: no handler panics, whatever comes.
func FuzzHandle(f *testing.F) {
	node, err := Open(Config{Cluster: "fuzz", NodeID: 1, Listen: "127.0.0.1:0", DataDir: f.TempDir(), Settings: map[string]string{
		"group.initial.rebalance.delay.ms": "0", "group.min.session.timeout.ms": "1", "group.max.session.timeout.ms": "100",
	}})
	if err != nil {
		f.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- node.Run(context.Background()) }()
	f.Cleanup(func() {
		if err := node.Close(); err != nil {
			f.Error(err)
		}
		if err := <-ran; err != nil {
			f.Error(err)
		}
	})
	for key, a := range node.table() {
		for version := a.oldest; version <= a.newest; version++ {
			req := kmsg.RequestForKey(key)
			req.SetVersion(version)
			f.Add(req.AppendTo(wire.AppendRequestHeader(nil, wire.RequestHeader{Key: key, Version: version})))
		}
	}
	for version := int16(3); version <= 13; version++ {
		f.Add(produceOf(version).AppendTo(wire.AppendRequestHeader(nil, wire.RequestHeader{Version: version})))
	}
	for version := int16(4); version <= 12; version++ {
		req := fetchOf(0, 0, 2)
		req.Version, req.MaxWaitMillis = version, 1
		f.Add(req.AppendTo(wire.AppendRequestHeader(nil, wire.RequestHeader{Key: 1, Version: version})))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < 8 || len(frame) > 1<<16 {
			return
		}
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		// A request may park for as long as it says: the context does not let it.
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		c := &conn{node: node, net: ours, in: bufio.NewReaderSize(ours, readBuffer), remote: "127.0.0.1:1"}
		c.startAnswer = func() { c.answering.Go(func() { c.answer(ctx) }) }
		owned := append(node.buffers.get(len(frame))[:0], frame...)
		_ = c.handle(ctx, owned, 0) // an error closes the connection, no more
		c.finish()
		ours.Close()
		theirs.Close()
	})
}

// FuzzServe feeds arbitrary bytes to a connection.
func FuzzServe(f *testing.F) {
	frame := wire.AppendRequestHeader(make([]byte, 4), wire.RequestHeader{Key: keyAPIVersions})
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
	f.Add(frame)
	f.Add(append(append([]byte{}, frame...), frame...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	node, err := Open(Config{Cluster: "fuzz", NodeID: 1, Listen: "127.0.0.1:0", DataDir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { node.Close() })
	f.Fuzz(func(t *testing.T, input []byte) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		go func() {
			_, _ = theirs.Write(input)
			theirs.Close()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		c := &conn{node: node, net: ours, in: bufio.NewReaderSize(ours, readBuffer), remote: "127.0.0.1:1"}
		_ = c.serve(ctx, ctx)
		ours.Close()
	})
}
