package integration_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// mirrorTools is a Java that runs testdata/MirrorTools.java: MirrorMaker 2's own
// classes, asked one question after the other.
type mirrorTools struct {
	w    *world
	one  chan struct{} // capacity 1: held by who asks
	in   io.WriteCloser
	out  chan string // lines; closed when it has ended
	errs *strings.Builder
}

func (w *world) mirrorTools() *mirrorTools {
	w.t.Helper()
	java, jars := classpath(w.t)
	file, err := filepath.Abs(filepath.Join("testdata", "MirrorTools.java"))
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(java, "-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-cp", jars, file)
	m := &mirrorTools{w: w, one: make(chan struct{}, 1), out: make(chan string, 1024), errs: &strings.Builder{}}
	cmd.Stderr = m.errs
	if m.in, err = cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(m.out)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			m.out <- lines.Text()
		}
	}()
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill() // gone already: nothing to do
		for range m.out {      // until it is closed
		}
		_ = cmd.Wait()
	})
	return m
}

// ask returns the lines of an answer.
func (m *mirrorTools) ask(t testing.TB, words ...string) []string {
	t.Helper()
	lines, err := m.try(words...)
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(words, " "), err)
	}
	t.Logf("%s\n\t%s", m.named(strings.Join(words, " ")), strings.Join(lines, "\n\t"))
	return lines
}

func (m *mirrorTools) try(words ...string) ([]string, error) {
	m.one <- struct{}{}
	defer func() { <-m.one }()
	if _, err := io.WriteString(m.in, strings.Join(words, "\t")+"\n"); err != nil {
		return nil, fmt.Errorf("%w: %s", err, m.errs)
	}
	var lines, faults []string
	late := time.After(time.Minute)
	for {
		select {
		case line, ok := <-m.out:
			switch {
			case !ok:
				return lines, fmt.Errorf("java has ended: %s", m.errs)
			case line == "." && len(faults) > 0:
				return lines, errors.New(strings.Join(faults, ", because "))
			case line == ".":
				return lines, nil
			case strings.HasPrefix(line, "! "):
				faults = append(faults, line[2:])
			default:
				lines = append(lines, line)
			}
		case <-late:
			return lines, errors.New("no answer within a minute")
		}
	}
}

// named puts the clusters' names in place of their addresses.
func (m *mirrorTools) named(s string) string {
	for name, address := range m.w.addresses {
		s = strings.ReplaceAll(s, address, name)
	}
	return s
}

// of are the properties of a client of a cluster.
func (m *mirrorTools) of(cluster string, more ...string) []string {
	return append([]string{"bootstrap.servers=" + m.w.addr(cluster)}, more...)
}

// offsets is the answer of translateOffsets or remoteConsumerOffsets about one
// topic: by partition.
func (m *mirrorTools) offsets(t testing.TB, topic string, words ...string) map[int32]int64 {
	t.Helper()
	all := map[int32]int64{}
	for _, line := range m.ask(t, words...) {
		fields := strings.Fields(line)
		partition, err := strconv.ParseInt(fields[1], 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		offset, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if fields[0] == topic {
			all[int32(partition)] = offset
		}
	}
	return all
}

// question are the words of such a question for a group of a source.
func (m *mirrorTools) question(verb, group, source, target string, more ...string) []string {
	return append([]string{verb, group, source}, m.of(target, more...)...)
}

// has fails the test unless the lines hold all of these.
func has(t testing.TB, lines []string, want ...string) {
	t.Helper()
	for _, one := range want {
		if !slices.Contains(lines, one) {
			t.Errorf("got %q, want %q among them", lines, one)
		}
	}
}

// only fails the test unless these are the lines.
func only(t testing.TB, lines []string, want ...string) {
	t.Helper()
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}

// commit commits offsets of a group as somebody without members.
func (w *world) commit(cluster, group, topic string, at map[int32]int64) {
	w.t.Helper()
	offsets := kadm.Offsets{}
	for partition, offset := range at {
		offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: "m1"})
	}
	if err := w.admin(cluster).CommitAllOffsets(w.ctx(20*time.Second), group, offsets); err != nil {
		w.t.Fatalf("commit %s in %s: %v", group, cluster, err)
	}
}

// mirrorPlace is a topic in a cluster.
type mirrorPlace struct{ cluster, topic string }

// follows waits until a group stands at the target where it stands at the
// source: before the same record, by offsets that the second function gives.
func (w *world) follows(group string, from, to mirrorPlace, there func() map[int32]int64) {
	w.t.Helper()
	source, target := w.read(from.cluster, from.topic), w.read(to.cluster, to.topic)
	eventually(w.t, 30*time.Second, fmt.Sprintf("%s of %s in %s", group, from.topic, to.cluster), func() error {
		here, at := w.committed(w.admin(from.cluster), group, from.topic), there()
		if len(here) == 0 {
			return fmt.Errorf("nothing is committed in %s", from.cluster)
		}
		for partition, offset := range here {
			stands, known := at[partition]
			if !known {
				return fmt.Errorf("partition %d: nothing there for %d", partition, offset)
			}
			if want, got := place(source[partition], offset), place(target[partition], stands); got != want {
				return fmt.Errorf("partition %d: %d stands %s, is %d %s", partition, offset, want, stands, got)
			}
		}
		return nil
	})
}

// followsTo is follows for what the group has committed at the target.
func (w *world) followsTo(group string, from, to mirrorPlace) {
	w.t.Helper()
	admin := w.admin(to.cluster)
	w.follows(group, from, to, func() map[int32]int64 { return w.committed(admin, group, to.topic) })
}

// keyed writes numbered records with so many keys again and again, in the end a
// tombstone for the first.
func (w *world) keyed(cluster string, h *history, keys, times int) {
	w.t.Helper()
	client := w.client(cluster, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer client.Close()
	for i := range times * keys {
		for partition := range int32(len(h.fates)) {
			r := h.next(partition)
			r.Key = fmt.Appendf(nil, "key-%d", i%keys)
			if i >= (times-1)*keys && i%keys == 0 {
				r.Value = nil // a tombstone
			}
			client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
				if err != nil {
					w.t.Errorf("write %s in %s: %v", r.Topic, cluster, err)
				}
			})
		}
	}
	if err := client.Flush(w.ctx(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
}

func numeral(t testing.TB, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// exactly finds where the record that comes next at the source stands at the
// target, or where one that comes would.
func exactly(source, target []*kgo.Record, offset int64) int64 {
	want := place(source, offset)
	for _, r := range target {
		if place(target, r.Offset) == want {
			return r.Offset
		}
	}
	return target[len(target)-1].Offset + 1
}

// writeTo writes to one partition of a history.
func (w *world) writeTo(cluster string, h *history, partition int32, n int) {
	w.t.Helper()
	client := w.client(cluster, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer client.Close()
	for range n {
		r := h.next(partition)
		if err := client.ProduceSync(w.ctx(20*time.Second), r).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
		h.ack(r)
	}
}

// config is one setting of a topic; empty while the topic is not there.
func (w *world) config(cluster, topic, key string) string {
	w.t.Helper()
	all, err := w.admin(cluster).DescribeTopicConfigs(w.ctx(10*time.Second), topic)
	if err != nil || len(all) == 0 || all[0].Err != nil {
		return ""
	}
	for _, c := range all[0].Configs {
		if c.Key == key && c.Value != nil {
			return *c.Value
		}
	}
	return ""
}

func (w *world) setConfig(cluster, topic, key, value string) {
	w.t.Helper()
	_, err := w.admin(cluster).AlterTopicConfigs(w.ctx(10*time.Second), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, topic)
	if err != nil {
		w.t.Fatal(err)
	}
}

// caughtUp waits until the copy's last record is the source's. Compaction may
// take away others meanwhile.
func (w *world) caughtUp(source, topic, target, mirror string) {
	w.t.Helper()
	eventually(w.t, 45*time.Second, mirror+" in "+target, func() error {
		if w.ends(w.admin(target), mirror) == nil {
			return fmt.Errorf("no topic")
		}
		want, got := w.read(source, topic), w.read(target, mirror)
		for partition, records := range want {
			last := records[len(records)-1]
			if n := len(got[partition]); n == 0 || difference(last, got[partition][n-1]) != "" {
				return fmt.Errorf("partition %d: %d records, the last is not #%s", partition, n, place(records, last.Offset))
			}
		}
		return nil
	})
}

// kafkaOverTLS starts an Apache Kafka that also listens at NAME-tls, with a
// certificate in the file NAME.pem.
func (w *world) kafkaOverTLS(name string, settings ...string) {
	w.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		w.t.Fatal(err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	if err := os.WriteFile(w.pem(name), chain, 0o600); err != nil {
		w.t.Fatal(err)
	}
	inProperties := func(text []byte) string { return strings.ReplaceAll(string(text), "\n", "\\n") }
	w.kafka(name, append([]string{
		"listeners=PLAINTEXT://" + w.addr(name) + ",CONTROLLER://" + w.addr(name+"-controller") + ",SSL://" + w.addr(name+"-tls"),
		"advertised.listeners=PLAINTEXT://" + w.addr(name) + ",SSL://" + w.addr(name+"-tls"),
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL",
		"ssl.keystore.type=PEM",
		"ssl.keystore.certificate.chain=" + inProperties(chain),
		"ssl.keystore.key=" + inProperties(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
	}, settings...)...)
}

// pem is where the certificate of such a Kafka is.
func (w *world) pem(name string) string { return filepath.Join(w.dir, name+".pem") }
