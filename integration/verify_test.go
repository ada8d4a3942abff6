package integration_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"kmirror/internal/wire"
)

// verified is what the stories read of `kmirror verify -o json`.
type verified struct {
	Verdict string `json:"verdict"`
	Topics  []struct {
		Topic   string `json:"topic"`
		Verdict string `json:"verdict"`
		Digest  struct{ Source, Target string }
		Tally   struct {
			Records     int64 `json:"records"`
			Differences int64 `json:"differences"`
			Gone        int64 `json:"gone"`
			ByOthers    int64 `json:"by_others"`
			LeftOut     int64 `json:"left_out"`
			Batches     int64 `json:"batches"`
		} `json:"tally"`
	} `json:"topics"`
	First *struct {
		Kind         string `json:"kind"`
		Topic        string `json:"topic"`
		Partition    int32  `json:"partition"`
		SourceOffset int64  `json:"source_offset"`
		TargetOffset int64  `json:"target_offset"`
		Field        string `json:"field"`
	} `json:"first_difference"`
}

// verify runs the command and wants an exit code.
func (d *daemon) verify(code int, args ...string) (v verified) {
	d.w.t.Helper()
	stdout, stderr, got := d.kmirror(append([]string{"verify", "-o", "json"}, args...)...)
	if got != code {
		d.w.t.Fatalf("verify %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		d.w.t.Fatalf("verify %s prints no JSON: %v\n%s", strings.Join(args, " "), err, stdout)
	}
	return v
}

const (
	verifyThere = "east->west" // from Apache Kafka to an embedded cluster
	verifyBack  = "west->east"
)

// TestVerify lets `kmirror verify` prove what is the same on both sides, and find
// what is not: between Apache Kafka and an embedded cluster, both ways.
func TestVerify(t *testing.T) {
	w := newWorld(t)
	w.kafka("east")
	d := w.run("main", `
clusters:
  east: {bootstrap: [{{addr "east"}}]}
  west: {embedded: {nodes: [{{addr "west"}}]}}
flows:
  - {from: east, to: west, topics: ["orders", "payments", "live"], heartbeats: false}
  - {from: west, to: east, topics: ["bulk", "plain", "bills"], heartbeats: false}
`)
	t.Run("words", func(t *testing.T) { w.in(t).verifyWords(d.in(t)) })
	t.Run("equal", func(t *testing.T) { w.in(t).verifyEqual(d.in(t)) })
	t.Run("meanwhile", func(t *testing.T) { w.in(t).verifyMeanwhile(d.in(t)) })
	t.Run("strangers and retention", func(t *testing.T) { w.in(t).verifyStrangers(d.in(t)) })
	t.Run("stopped and gone on with", func(t *testing.T) { w.in(t).verifyResumed(d.in(t)) })
	t.Run("different", func(t *testing.T) { w.in(t).verifyDifferent(d.in(t)) })
}

// TestVerifyCircle: two sites write one topic and mirror each other. What came
// from the other side is left out on the way back, and no difference.
func TestVerifyCircle(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}]}}
  west: {embedded: {nodes: [{{addr "west"}}]}}
flows:
  - {from: east, to: west, topics: ["orders"], naming: identity, heartbeats: false}
  - {from: west, to: east, topics: ["orders"], naming: identity, heartbeats: false}
`)
	w.create("east", "orders", 1)
	w.create("west", "orders", 1)
	for _, site := range []string{"east", "west", "east", "west"} {
		client := w.client(site, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("orders"))
		for range 100 {
			client.Produce(w.ctx(20*time.Second), &kgo.Record{Value: []byte("from " + site)}, nil)
		}
		if err := client.Flush(w.ctx(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	for _, site := range []string{"east", "west"} {
		w.reaches(site, "orders", 400)
	}
	for _, flow := range []string{verifyThere, verifyBack} {
		eventually(t, 20*time.Second, "the map of "+flow, func() error {
			v := d.verify(0, flow)
			if got := v.Topics[0].Tally; v.Verdict != "equal" || got.Records != 200 || got.LeftOut == 0 {
				return fmt.Errorf("%+v", v)
			}
			return nil
		})
	}
}

// verifyWords: what cannot be verified is refused with a word.
func (w *world) verifyWords(d *daemon) {
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{4, "no flow", []string{"nope"}},
		{2, "--sample", []string{verifyThere, "--sample", "0%"}},
		{2, "--since", []string{verifyThere, "--since", "yesterday"}},
		{2, "nothing to go on with", []string{verifyThere, "--resume"}},
		{4, "no topic", []string{verifyThere, "--topic", "nope"}},
	} {
		_, stderr, code := d.kmirror(append([]string{"verify"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.says) {
			w.t.Errorf("verify %v: exit code %d, want %d and %q\n%s", c.args, code, c.code, c.says, stderr)
		}
	}
}

// verifyEqual: every codec, transactions committed and aborted, many partitions.
func (w *world) verifyEqual(d *daemon) {
	h := newHistory("orders", 3, 200)
	w.create("east", "orders", 3)
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		w.write("east", h, 100, kgo.ProducerBatchCompression(codec))
	}
	w.exact(h, "east", "west", "east.orders")
	p := newHistory("payments", 2, 200)
	w.create("east", "payments", 2)
	w.transactions("east", p, 15)
	w.exact(p, "east", "west", "east.payments")

	var v verified
	eventually(w.t, 30*time.Second, "the map of everything", func() error { // it is written behind
		v = d.verify(0, verifyThere)
		var n int64
		for _, topic := range v.Topics {
			n += topic.Tally.Records
		}
		if want := w.count("west", "east.orders") + w.count("west", "east.payments"); n != want {
			return fmt.Errorf("%d records were compared, there are %d", n, want)
		}
		return nil
	})
	if v.Verdict != "equal" || len(v.Topics) != 2 || v.First != nil {
		w.t.Errorf("%+v", v)
	}
	one := d.verify(0, verifyThere, "--topic", "orders", "--partition", "1", "--canonical")
	if len(one.Topics) != 1 || one.Topics[0].Tally.Records != 500 || one.Topics[0].Tally.Batches != 0 {
		w.t.Errorf("one partition: %+v", one)
	}
	if late := d.verify(0, verifyThere, "--topic", "orders", "--since", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)); late.Verdict != "nothing" {
		w.t.Errorf("since in an hour: %+v", late)
	}
	if turns := d.verify(0, verifyThere, "--at-once", "1"); turns.Verdict != "equal" || len(turns.Topics) != 2 || turns.Topics[0].Tally != v.Topics[0].Tally || turns.Topics[1].Digest != v.Topics[1].Digest {
		w.t.Errorf("a topic in a turn: %+v, all at once: %+v", turns, v)
	}
	out := d.mustKmirror("verify", verifyThere)
	if !strings.Contains(out, "east.payments") || !strings.Contains(out, "equal") {
		w.t.Errorf("it prints\n%s", out)
	}
}

// count is how many records consumers see in a topic.
func (w *world) count(cluster, topic string) (n int64) {
	for _, records := range w.read(cluster, topic) {
		n += int64(len(records))
	}
	return n
}

// verifyMeanwhile: records keep coming, and the mirror is killed.
func (w *world) verifyMeanwhile(d *daemon) {
	h := newHistory("live", 2, 400)
	w.create("east", "live", 2)
	l := w.load("east", h, 2000)
	w.mirroredSome(d, verifyThere, "live")
	for range 3 {
		if v := d.verify(0, verifyThere, "--topic", "live"); v.Verdict != "equal" {
			w.t.Errorf("%+v", v)
		}
	}
	l.finish()
}

// mirroredSome waits until the map knows something of a topic.
func (w *world) mirroredSome(d *daemon, flow, topic string) {
	w.t.Helper()
	eventually(w.t, 60*time.Second, topic+" in the map", func() error {
		stdout, stderr, code := d.kmirror("verify", "-o", "json", flow, "--topic", topic)
		if code != 0 || !strings.Contains(stdout, `"verdict": "equal"`) {
			return fmt.Errorf("exit code %d: %s%s", code, stdout, stderr)
		}
		return nil
	})
}

// verifyStrangers: what others wrote into the mirrored topic is counted, and what
// was deleted on either side.
func (w *world) verifyStrangers(d *daemon) {
	w.create("west", "bills", 1)
	h := newHistory("bills", 1, 100)
	stranger := w.client("east", kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("west.bills"))
	for i := range 4 {
		w.write("west", h, 50)
		w.mirroredAtLeast("east", "west.bills", h)
		if i == 3 {
			break
		}
		if err := stranger.ProduceSync(w.ctx(20*time.Second), &kgo.Record{Value: []byte("stranger")}).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
	}
	compared := func(records, gone, others int64) {
		w.t.Helper()
		eventually(w.t, 20*time.Second, "the map", func() error {
			v := d.verify(0, verifyBack, "--topic", "bills")
			if got := v.Topics[0].Tally; got.Records != records || got.Gone != gone || got.ByOthers != others || v.Verdict != "equal" {
				return fmt.Errorf("%+v", v)
			}
			return nil
		})
	}
	compared(200, 0, 3)
	w.expire("west", "bills", 60)
	compared(140, 60, 2)
	w.expire("east", "west.bills", 152) // 150 records and two strangers
	compared(50, 150, 0)
}

// verifyResumed: ctrl-c, then kill -9, then to the end; and what does not fit is refused.
func (w *world) verifyResumed(d *daemon) {
	const records = 40_000
	w.create("west", "bulk", 4)
	w.produce("west", "bulk", 4, records)
	w.reaches("east", "west.bulk", records)
	eventually(w.t, 20*time.Second, "the map", func() error {
		if v := d.verify(0, verifyBack, "--topic", "bulk"); v.Topics[0].Tally.Records != records {
			return fmt.Errorf("%+v", v)
		}
		return nil
	})
	whole := d.verify(0, verifyBack, "--topic", "bulk")

	args := []string{"verify", verifyBack, "--topic", "bulk", "--throttle", "15", "--config", d.config}
	run := func(name string, more ...string) *process {
		return start(w.t, w.dir, name, raceEnv(), built(w.t), append(args, more...)...)
	}
	state := filepath.Join(d.dataDir(), "verify", "west-%3Eeast", "state.json")
	progressed := func(p *process) {
		w.t.Helper()
		before, _ := os.ReadFile(state)
		eventually(w.t, 20*time.Second, "progress is kept", func() error {
			if !p.running() {
				w.t.Fatalf("it ended: %s", p.tail(10))
			}
			now, err := os.ReadFile(state)
			if err == nil && (bytes.Equal(now, before) || !bytes.Contains(now, []byte("source_state"))) {
				err = fmt.Errorf("no progress")
			}
			return err
		})
	}
	p := run("verify-1")
	progressed(p)
	if _, stderr, code := d.kmirror("verify", verifyBack); code != 5 {
		w.t.Errorf("a second one beside it: exit code %d\n%s", code, stderr)
	}
	p.signal(syscall.SIGINT)
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(p.log(), "to go on: kmirror verify 'west->east' --resume") {
		w.t.Errorf("ctrl-c: exit code %d\n%s", code, p.tail(10))
	}
	for _, refused := range [][]string{{verifyBack}, {verifyBack, "--resume", "--topic", "plain"}, {verifyBack, "--resume", "--sample", "5%"}} {
		if _, stderr, code := d.kmirror(append([]string{"verify"}, refused...)...); code != 2 || !strings.Contains(stderr, "stopped") {
			w.t.Errorf("%v: exit code %d\n%s", refused, code, stderr)
		}
	}
	p = run("verify-2", "--resume")
	progressed(p)
	p.kill()
	v := d.verify(0, verifyBack, "--resume")
	if v.Verdict != "equal" || v.Topics[0].Tally.Records != records || v.Topics[0].Digest != whole.Topics[0].Digest && v.Topics[0].Tally.Batches == whole.Topics[0].Tally.Batches {
		w.t.Errorf("gone on with: %+v\nin one go: %+v", v, whole)
	}
	if _, err := os.Stat(state); err == nil {
		w.t.Error("the state of a verification that is over is still there")
	}
}

// verifyDifferent: one byte of one record in the target is another, and its batch's
// checksum fits; then one that does not fit.
func (w *world) verifyDifferent(d *daemon) {
	h := newHistory("orders", 3, 200)
	target := filepath.Join(d.dataDir(), "west", "node-1", "east.orders-1", "00000000000000000000.log")
	changed := w.read("west", "east.orders")[1][37]
	d.stop(20 * time.Second)
	w.spoil(target, changed.Offset, changed.Value, true)
	d.start()
	d.ready(readyWithin)
	v := d.verify(7, verifyThere, "--topic", h.topic)
	f, shown := v.First, strings.TrimSuffix(fmt.Sprintf("%q", changed.Value[:20]), `"`)
	if v.Verdict != "different" || f == nil || f.Kind != "changed" || f.Field != "value" || f.Partition != 1 || f.TargetOffset != changed.Offset || v.Topics[0].Tally.Differences != 1 {
		w.t.Errorf("%+v, first %+v", v, f)
	}
	stdout, _, code := d.kmirror("verify", verifyThere, "--topic", h.topic)
	if want := fmt.Sprintf("first difference: orders/1 @ source %d @ target %d: the value differs", f.SourceOffset, f.TargetOffset); code != 7 || !strings.Contains(stdout, want) || strings.Contains(stdout, shown) {
		w.t.Errorf("exit code %d, it prints\n%s", code, stdout)
	}
	if stdout, _, _ := d.kmirror("verify", verifyThere, "--topic", h.topic, "--show"); !strings.Contains(stdout, shown) {
		w.t.Errorf("with --show it prints\n%s", stdout)
	}
	d.stop(20 * time.Second)
	w.spoil(target, changed.Offset, changed.Value[1:], false)
	if _, stderr, code := d.kmirror("verify", verifyThere, "--timeout", "2s"); code != 3 || !strings.Contains(stderr, "both sides") {
		w.t.Errorf("without the target: exit code %d\n%s", code, stderr)
	}
	d.start()
	d.ready(readyWithin)
	if v := d.verify(7, verifyThere, "--topic", h.topic); v.First.Kind != "corrupt" {
		w.t.Errorf("%+v", v.First)
	}
}

// spoil changes the last byte of a value in a segment file, and the batch's
// checksum with it if it is to fit.
func (w *world) spoil(segment string, offset int64, value []byte, fits bool) {
	w.t.Helper()
	content, err := os.ReadFile(segment)
	if err != nil {
		w.t.Fatal(err)
	}
	for rest := content; len(rest) > 0; {
		b, after, err := wire.NextBatch(rest)
		if err != nil {
			w.t.Fatal(err)
		}
		rest = after
		if b.BaseOffset() > offset || b.LastOffset() < offset {
			continue
		}
		at := bytes.Index(b, value[:len(value)-1])
		if at < 0 || b.Codec() != wire.CodecNone {
			w.t.Fatalf("the batch of offset %d is %s, and the value at %d", offset, b.Codec(), at)
		}
		b[at+len(value)-1] ^= 1
		if fits {
			binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
		}
	}
	if err := os.WriteFile(segment, content, 0o644); err != nil {
		w.t.Fatal(err)
	}
}
