package integration_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestGarbageOnThePort throws things at the broker's port that no client would
// send. Each costs its own connection, and nothing else.
func TestGarbageOnThePort(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", twoClusters)
	h := newHistory("orders", 2, 200)
	w.create("east", "orders", 2)
	load := w.load("east", h, 500)
	time.Sleep(time.Second)
	before := d.resident()

	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	size := func(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	tests := []struct {
		name string
		sent []byte
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: kafka\r\n\r\n")},
		{"a TLS hello", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")},
		{"noise", noise},
		{"zeros", make([]byte, 4096)},
		{"a length of 2 GB", append(size(1<<31-1), noise...)},
		{"a negative length", append(size(-5), noise...)},
		{"half a frame", append(size(100), noise[:50]...)},
		{"an unknown API key", append(size(14), "\x03\xe7\x00\x00\x00\x00\x00\x01\x00\x04test"...)},
		{"a version nobody has", append(size(14), "\x00\x00\x03\xe7\x00\x00\x00\x01\x00\x04test"...)},
		{"a header cut short", append(size(3), "\x00\x00\x00"...)},
		{"a body of noise", append(append(size(14+1000), "\x00\x01\x00\x0b\x00\x00\x00\x01\x00\x04test"...), noise[:1000]...)},
		{"an array of 2 billion topics", append(append(size(14+8), "\x00\x03\x00\x01\x00\x00\x00\x01\x00\x04test"...), "\x7f\xff\xff\xff\x00\x00\x00\x00"...)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", w.addr("east"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = conn.Write(test.sent) // the other side may hang up meanwhile
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			_, _ = io.Copy(io.Discard, conn)
		})
	}
	t.Run("many idle connections that lie", func(t *testing.T) {
		for range 200 {
			conn, err := net.Dial("tcp", w.addr("east"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = conn.Write(append(size(90<<20), noise[:100]...))
		}
		time.Sleep(500 * time.Millisecond)
		if grown := d.resident() - before; grown > 400<<20 {
			t.Errorf("200 connections that announced 90 MB each made the daemon grow by %d MB", grown>>20)
		}
	})
	load.finish()
	w.exact(h, "east", "west", "east.orders")
}

// TestBadBatches produces batches that are not what they say. Each is refused
// with an error code, for itself, and the topic stays whole.
func TestBadBatches(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", twoClusters)
	h := newHistory("orders", 1, 200)
	w.create("east", "orders", 1)
	w.write("east", h, 100)
	before := d.resident()

	good := func() []byte { return batch(nil, 0, 1, record(0, []byte("v"))) }
	tests := []struct {
		name  string
		batch []byte
		code  int16 // 0: any but none
	}{
		{"a wrong CRC", flip(good(), 20), kerr.CorruptMessage.Code},
		{"a flipped bit in a record", flip(good(), len(good())-2), kerr.CorruptMessage.Code},
		{"a length that lies", flip(good(), 11), 0},
		{"cut in the middle", good()[:50], 0},
		{"magic 0", legacy(0), 0},
		{"magic 1", legacy(1), 0},
		{"magic 9", flipTo(good(), 16, 9), 0},
		{"fewer records than announced", batch(nil, 0, 5, record(0, []byte("v"))), 0},
		{"a billion records announced", batch(nil, 0, 1<<30, record(0, []byte("v"))), 0},
		{"an unknown codec", batch(nil, 7, 1, record(0, []byte("v"))), 0},
		{"a codec and no compressed data", batch(nil, 4, 1, record(0, []byte("v"))), 0},
		{"a batch that inflates to 2 GB", batch(nil, 4, 1, bomb(t, 2<<30)), 0},
	}
	client := w.client("east")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			code, err := produceRaw(w.ctx(time.Minute), client, "orders", test.batch)
			switch {
			case err != nil:
				t.Errorf("the connection was dropped: %v", err)
			case code == 0:
				t.Error("accepted")
			case test.code != 0 && code != test.code:
				t.Errorf("got %v, want %v", kerr.ErrorForCode(code), kerr.ErrorForCode(test.code))
			default:
				t.Log(kerr.ErrorForCode(code))
			}
		})
	}
	limit := int64(400 << 20)
	if raceEnabled {
		limit *= 3 // the race detector keeps its own account of every byte
	}
	if grown := d.resident() - before; grown > limit {
		t.Errorf("the daemon grew by %d MB", grown>>20)
	}
	w.write("east", h, 100)
	w.exact(h, "east", "west", "east.orders")
}

// produceRaw sends the bytes as one partition's records and returns the answer's
// error code.
func produceRaw(ctx context.Context, client *kgo.Client, topic string, records []byte) (int16, error) {
	request := kmsg.NewPtrProduceRequest()
	request.Version, request.Acks, request.TimeoutMillis = 9, -1, 30_000
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = records
	asked := kmsg.NewProduceRequestTopic()
	asked.Topic = topic
	asked.Partitions = append(asked.Partitions, partition)
	request.Topics = append(request.Topics, asked)
	brokers := client.DiscoveredBrokers()
	if len(brokers) == 0 {
		if err := client.Ping(ctx); err != nil {
			return 0, err
		}
		brokers = client.DiscoveredBrokers()
	}
	answer, err := brokers[0].RetriableRequest(ctx, pinned{request})
	if err != nil {
		return 0, err
	}
	response, ok := answer.(*kmsg.ProduceResponse)
	if !ok || len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("answer %+v", answer)
	}
	return response.Topics[0].Partitions[0].ErrorCode, nil
}

// pinned is a Produce request of just one version: the one that names topics.
type pinned struct{ *kmsg.ProduceRequest }

func (pinned) MaxVersion() int16 { return 9 }

// record encodes one record without key and headers.
func record(delta int64, value []byte) []byte {
	var body []byte
	body = append(body, 0)                              // attributes
	body = binary.AppendVarint(body, 0)                 // timestamp delta
	body = binary.AppendVarint(body, delta)             // offset delta
	body = binary.AppendVarint(body, -1)                // no key
	body = binary.AppendVarint(body, int64(len(value))) // value
	body = append(body, value...)                       //
	body = binary.AppendVarint(body, 0)                 // no headers
	return append(binary.AppendVarint(nil, int64(len(body))), body...)
}

// batch encodes a batch of magic 2 around records, be they right or not.
func batch(dst []byte, attributes int16, count int32, records []byte) []byte {
	var checked []byte
	checked = binary.BigEndian.AppendUint16(checked, uint16(attributes))
	checked = binary.BigEndian.AppendUint32(checked, uint32(count-1))
	now := uint64(time.Now().UnixMilli())
	checked = binary.BigEndian.AppendUint64(checked, now)
	checked = binary.BigEndian.AppendUint64(checked, now)
	checked = binary.BigEndian.AppendUint64(checked, ^uint64(0)) // producer id
	checked = binary.BigEndian.AppendUint16(checked, ^uint16(0)) // epoch
	checked = binary.BigEndian.AppendUint32(checked, ^uint32(0)) // sequence
	checked = binary.BigEndian.AppendUint32(checked, uint32(count))
	checked = append(checked, records...)
	dst = binary.BigEndian.AppendUint64(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(9+len(checked)))
	dst = binary.BigEndian.AppendUint32(dst, ^uint32(0))
	dst = append(dst, 2)
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(checked, crc32.MakeTable(crc32.Castagnoli)))
	return append(dst, checked...)
}

// legacy encodes a message of magic 0 or 1.
func legacy(magic byte) []byte {
	body := []byte{magic, 0}
	if magic == 1 {
		body = binary.BigEndian.AppendUint64(body, uint64(time.Now().UnixMilli()))
	}
	body = append(body, "\xff\xff\xff\xff\x00\x00\x00\x05hello"...)
	message := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(body))
	message = append(message, body...)
	set := binary.BigEndian.AppendUint64(nil, 0)
	set = binary.BigEndian.AppendUint32(set, uint32(len(message)))
	return append(set, message...)
}

// bomb is zstd data of so many zeros, wrapped as one record with a huge value.
func bomb(t *testing.T, size int64) []byte {
	t.Helper()
	var packed bytes.Buffer
	writer, err := zstd.NewWriter(&packed, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	head := record(0, nil)
	body := head[1 : len(head)-2] // without its length, the value's length and the header count
	value := binary.AppendVarint(nil, size)
	_, _ = writer.Write(binary.AppendVarint(nil, int64(len(body)+len(value)+1)+size))
	_, _ = writer.Write(append(body, value...))
	if _, err := io.CopyN(writer, zeros{}, size+1); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func flip(b []byte, at int) []byte { return flipTo(b, at, b[at]^1) }

func flipTo(b []byte, at int, to byte) []byte {
	changed := bytes.Clone(b)
	changed[at] = to
	return changed
}

// TestLongTopicName has a topic whose name is too long once it is prefixed. Its
// flow says so and goes on with the others.
func TestLongTopicName(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", twoClusters)
	long := strings.Repeat("x", 249)
	w.create("east", long, 1)
	h := newHistory("orders", 1, 200)
	w.create("east", "orders", 1)
	w.write("east", h, 50)
	w.exact(h, "east", "west", "east.orders")
	eventually(t, 20*time.Second, "a word about the long name", func() error {
		s, err := d.status()
		if err != nil {
			return err
		}
		for _, topic := range s.Flows[0].Topics {
			if topic.Source == long && topic.Error != "" {
				t.Log(topic.Error)
				return nil
			}
		}
		return fmt.Errorf("no topic of this name has an error")
	})
}
