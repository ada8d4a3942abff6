package integration_test

import (
	"bytes"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// large writes one record of a megabyte and a half, which no dictionary makes
// smaller.
func (x *troubles) large(h *history) *kgo.Record {
	x.t.Helper()
	client := x.client("east", kgo.ProducerBatchMaxBytes(4<<20), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	r := &kgo.Record{Topic: h.topic, Key: []byte("large"), Value: noise(3 << 19), Timestamp: started()}
	if err := client.ProduceSync(x.ctx(20*time.Second), r).FirstErr(); err != nil {
		x.t.Fatal(err)
	}
	return r
}

// larges are the large records among a topic's.
func (x *troubles) larges(cluster, topic string) (found []*kgo.Record) {
	x.t.Helper()
	for _, log := range x.read(cluster, topic) {
		for _, r := range log {
			if string(r.Key) == "large" {
				found = append(found, r)
			}
		}
	}
	return found
}

func (x *troubles) tooLargeRaise() {
	h := x.begin("raise", 100, "max.message.bytes=4000000")
	large := x.large(h)
	x.write("east", h, 100)
	x.whole(h)
	if got := x.larges("west", "east."+h.topic); len(got) != 1 || difference(large, got[0]) != "" {
		x.t.Errorf("%d large records in the target, want the one", len(got))
	}
	in := x.mirror.incident("record-too-large", h.topic)
	if in.SourceOffset != 100 || !strings.Contains(in.Action, "raised") {
		x.t.Errorf("%+v", in)
	}
}

func (x *troubles) tooLargePark() {
	h := x.begin("park", 100, "max.message.bytes=4000000")
	x.large(h)
	x.write("east", h, 100)
	if in := x.mirror.incident("record-too-large", h.topic); in.SourceOffset != 100 {
		x.t.Errorf("%+v", in)
	}
	x.mirror.becomes("stopped", h.topic, 0)
	if n := count(x.read("west", "east."+h.topic)); n != 100 {
		x.t.Errorf("%d records in the target, want the 100 before the large one", n)
	}
	// The operator raises the limit, and it goes on.
	x.alter("west", "east."+h.topic, "max.message.bytes=4000000")
	x.mirror.mustKmirror("resume", "east->west", h.topic)
	x.whole(h)
	if got := x.larges("west", "east."+h.topic); len(got) != 1 {
		x.t.Errorf("%d large records in the target, want one", len(got))
	}
}

func (x *troubles) tooLargeLetter() {
	h := x.begin("letter", 100, "max.message.bytes=4000000")
	large := x.large(h)
	x.write("east", h, 100)
	x.whole(h)
	if got := x.larges("west", "east."+h.topic); len(got) != 0 {
		x.t.Errorf("%d large records in the target, want none", len(got))
	}
	letters := x.larges("west", "east."+h.topic+".dead-letter")
	if len(letters) != 1 || !bytes.Equal(letters[0].Value, large.Value) {
		x.t.Fatalf("%d letters, want the one", len(letters))
	}
	headers := map[string]string{}
	for _, header := range letters[0].Headers {
		headers[header.Key] = string(header.Value)
	}
	if headers["kmirror.source.topic"] != h.topic || headers["kmirror.source.offset"] != "100" || headers["kmirror.cause"] == "" {
		x.t.Errorf("headers of the letter: %v", headers)
	}
	if in := x.mirror.incident("dead-letter", h.topic); in.SourceOffset != 100 || in.Count != 1 {
		x.t.Errorf("%+v", in)
	}
}
