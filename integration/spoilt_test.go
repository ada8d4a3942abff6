package integration_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestSpoiltAnswers puts kmirror before brokers whose answers are spoilt on the
// way: batches that are cut or lie about themselves, acknowledgements of what
// was refused and of places that do not exist, metadata that changes with each
// look, noise. Nothing of it may reach the copy, and where only one topic is
// concerned the other must flow on. When it is over, everything flows again.
func TestSpoiltAnswers(t *testing.T) {
	w := newWorld(t)
	w.run("brokers", `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}], advertised: [{{addr "east-linked"}}]}}
  west: {embedded: {nodes: [{{addr "west"}}], advertised: [{{addr "west-linked"}}]}}
`)
	east, west := w.link("east-linked", "east"), w.link("west-linked", "west")
	spoilt, witness := newHistory("spoilt", 2, 300), newHistory("witness", 2, 300)
	w.create("east", "spoilt", 2)
	w.create("east", "witness", 2)
	d := w.run("mirror", `
clusters:
  east: {bootstrap: [{{addr "east-linked"}}], client_id: mirror}
  west: {bootstrap: [{{addr "west-linked"}}], client_id: mirror}
flows:
  - {from: east, to: west, topics: [".*"], naming: prefixed, start: earliest, heartbeats: false}
`)
	loads := []*load{w.load("east", spoilt, 300), w.load("east", witness, 300)}
	w.goesOn("west", "east.spoilt", 20)
	w.goesOn("west", "east.witness", 20)
	source, target := w.topicID("east", "spoilt"), w.topicID("west", "east.spoilt")

	batches := func(spoil func([]byte) []byte) spoiler { return spoilFetch("spoilt", source, spoil) }
	acks := func(spoil func(*kmsg.ProduceResponseTopicPartition)) spoiler {
		return spoilProduce("east.spoilt", target, spoil)
	}
	tests := []struct {
		name  string
		where *link
		spoil spoiler
		other bool // the other topic flows on
	}{
		{"a bit is flipped", east, batches(func(b []byte) []byte { b[len(b)-3] ^= 4; return b }), true},
		{"a batch is cut", east, batches(func(b []byte) []byte { return b[:70] }), true},
		{"a batch's header is cut", east, batches(func(b []byte) []byte { return b[:20] }), true},
		{"a batch says it is longer", east, batches(func(b []byte) []byte {
			binary.BigEndian.PutUint32(b[8:], 1<<30)
			return b
		}), true},
		{"a batch has a negative length", east, batches(func(b []byte) []byte {
			binary.BigEndian.PutUint32(b[8:], 1<<31+5)
			return b
		}), true},
		{"a batch is of no known format", east, batches(func(b []byte) []byte { b[16] = 77; return b }), true},
		{"a batch counts more records than it has", east, batches(func(b []byte) []byte {
			binary.BigEndian.PutUint32(b[23:], binary.BigEndian.Uint32(b[23:])+1)
			binary.BigEndian.PutUint32(b[57:], binary.BigEndian.Uint32(b[57:])+1)
			return b
		}), true},
		{"noise in place of batches", east, batches(func(b []byte) []byte { return noise(len(b)) }), true},
		{"noise in place of a fetch", east, noiseFor(kmsg.Fetch), false},
		{"half a fetch", east, halfOf(kmsg.Fetch), false},
		{"the answer to another request", east, otherID(kmsg.Fetch), false},
		{"an acknowledgement far ahead", west, acks(func(p *kmsg.ProduceResponseTopicPartition) { p.BaseOffset += 1000 }), true},
		{"an acknowledgement far behind", west, acks(func(p *kmsg.ProduceResponseTopicPartition) { p.BaseOffset = 0 }), true},
		{"an acknowledgement of nowhere", west, acks(func(p *kmsg.ProduceResponseTopicPartition) { p.BaseOffset = -1 }), true},
		{"refused and written all the same", west, acks(refuse(kerr.NotEnoughReplicasAfterAppend)), true},
		{"refused for a reason nobody knows", west, acks(func(p *kmsg.ProduceResponseTopicPartition) { p.ErrorCode, p.BaseOffset = 999, -1 }), true},
		{"out of order, it says", west, acks(refuse(kerr.OutOfOrderSequenceNumber)), true},
		{"corrupt, it says", west, acks(refuse(kerr.CorruptMessage)), true},
		{"noise in place of an acknowledgement", west, noiseFor(kmsg.Produce), false},
		{"half an acknowledgement", west, halfOf(kmsg.Produce), false},
		{"source metadata flaps", east, flappingMetadata, false},
		{"target metadata flaps", west, flappingMetadata, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := w.in(t)
			test.where.do(harm{spoil: onlyFor("mirror", test.spoil)})
			defer test.where.heal()
			eventually(t, 20*time.Second, "answers spoilt", func() error {
				if n := test.where.spoilt(); n < 2 {
					return fmt.Errorf("%d", n)
				}
				return nil
			})
			if test.other {
				w.goesOn("west", "east.witness", 20)
			}
			test.where.heal()
			healed := time.Now()
			w.goesOn("west", "east.spoilt", 5)
			w.goesOn("west", "east.witness", 5)
			t.Logf("flows again after %v", time.Since(healed).Round(10*time.Millisecond))
		})
	}
	for _, l := range loads {
		l.finish()
	}
	groups := w.commitAnywhere("east", "spoilt", 2)
	w.exact(spoilt, "east", "west", "east.spoilt")
	w.exact(witness, "east", "west", "east.witness")
	for _, group := range groups {
		d.inStep(w, group, "spoilt", "east.spoilt")
	}
}

// spoiler is harm.spoil.
type spoiler = func(r request, answer []byte) (frame, bool)

// onlyFor leaves other clients' answers alone.
func onlyFor(client string, spoil spoiler) spoiler {
	return func(r request, answer []byte) (frame, bool) {
		if r.client != client {
			return frame{}, false
		}
		return spoil(r, answer)
	}
}

// spoilFetch spoils the batches of one topic.
func spoilFetch(topic string, id [16]byte, spoil func([]byte) []byte) spoiler {
	return func(r request, answer []byte) (frame, bool) {
		resp, ok := r.answer(answer).(*kmsg.FetchResponse)
		if !ok {
			return frame{}, false
		}
		changed := false
		for i := range resp.Topics {
			if x := &resp.Topics[i]; x.Topic == topic || r.version >= 13 && x.TopicID == id {
				for j := range x.Partitions {
					if p := &x.Partitions[j]; len(p.RecordBatches) > 70 {
						p.RecordBatches = spoil(p.RecordBatches)
						changed = true
					}
				}
			}
		}
		return r.encode(resp), changed
	}
}

// spoilProduce spoils the acknowledgements of one topic.
func spoilProduce(topic string, id [16]byte, spoil func(*kmsg.ProduceResponseTopicPartition)) spoiler {
	return func(r request, answer []byte) (frame, bool) {
		resp, ok := r.answer(answer).(*kmsg.ProduceResponse)
		if !ok {
			return frame{}, false
		}
		changed := false
		for i := range resp.Topics {
			if x := &resp.Topics[i]; x.Topic == topic || r.version >= 13 && x.TopicID == id {
				for j := range x.Partitions {
					spoil(&x.Partitions[j])
					changed = true
				}
			}
		}
		return r.encode(resp), changed
	}
}

// refuse makes an acknowledgement a refusal, though the batch is in the log.
func refuse(err *kerr.Error) func(*kmsg.ProduceResponseTopicPartition) {
	return func(p *kmsg.ProduceResponseTopicPartition) { p.ErrorCode, p.BaseOffset = err.Code, -1 }
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// noiseFor answers requests of the kind with noise that begins as an answer does.
func noiseFor(key kmsg.Key) spoiler {
	return func(r request, answer []byte) (frame, bool) {
		return frame{bytes: append(answer[:4:4], noise(len(answer)-4)...)}, r.key == int16(key)
	}
}

// halfOf resets the connection in the middle of an answer.
func halfOf(key kmsg.Key) spoiler {
	return func(r request, answer []byte) (frame, bool) {
		return frame{bytes: answer, half: true}, r.key == int16(key)
	}
}

// otherID answers as if another request had been asked.
func otherID(key kmsg.Key) spoiler {
	return func(r request, answer []byte) (frame, bool) {
		return frame{bytes: append(binary.BigEndian.AppendUint32(nil, uint32(r.id+1)), answer[4:]...)}, r.key == int16(key)
	}
}

// flappingMetadata shows each topic in another way at each look: without
// leaders, led by a broker that nobody knows, not at all, with an error; or no
// brokers.
func flappingMetadata(r request, answer []byte) (frame, bool) {
	resp, ok := r.answer(answer).(*kmsg.MetadataResponse)
	if !ok {
		return frame{}, false
	}
	for i := range resp.Topics {
		x := &resp.Topics[i]
		switch rand.N(6) {
		case 0:
			for j := range x.Partitions {
				x.Partitions[j].Leader, x.Partitions[j].ErrorCode = -1, kerr.LeaderNotAvailable.Code
			}
		case 1:
			for j := range x.Partitions {
				x.Partitions[j].Leader, x.Partitions[j].LeaderEpoch = 4711, x.Partitions[j].LeaderEpoch+1
			}
		case 2:
			x.ErrorCode, x.Partitions = kerr.UnknownTopicOrPartition.Code, nil
		case 3:
			x.ErrorCode, x.Partitions = kerr.UnknownServerError.Code, nil
		case 4:
			x.Partitions = x.Partitions[:len(x.Partitions)/2]
		}
	}
	switch rand.N(8) {
	case 0:
		resp.Topics = resp.Topics[:len(resp.Topics)/2]
	case 1:
		resp.Brokers = nil
	}
	return r.encode(resp), true
}
