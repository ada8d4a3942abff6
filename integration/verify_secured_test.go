package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestVerifySecured: one side is Apache Kafka, reached over TLS by a user with a
// password. Both ways are proven, and who may not come in is told why.
func TestVerifySecured(t *testing.T) {
	w := newWorld(t)
	w.kafkaOverTLS("east",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SASL_SSL",
		"sasl.enabled.mechanisms=PLAIN",
		"listener.name.ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_"+saslUser+"=\""+saslPassword+"\";",
	)
	d := w.run("main", `
clusters:
  east: {bootstrap: [{{addr "east-tls"}}], tls: {ca: east.pem}, sasl: {mechanism: plain, user: kmirror, password: secret}}
  west: {embedded: {nodes: [{{addr "west"}}]}}
flows:
  - {from: east, to: west, topics: ["orders"], heartbeats: false}
  - {from: west, to: east, topics: ["bills"], heartbeats: false}
`)
	for _, side := range []struct{ flow, from, to, topic string }{{verifyThere, "east", "west", "orders"}, {verifyBack, "west", "east", "bills"}} {
		h := newHistory(side.topic, 2, 200)
		w.create(side.from, side.topic, 2)
		for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.Lz4Compression()} {
			w.write(side.from, h, 300, kgo.ProducerBatchCompression(codec))
		}
		w.exact(h, side.from, side.to, side.from+"."+side.topic)
		for _, how := range [][]string{nil, {"--canonical"}, {"--parallel", "1", "--throttle", "50"}} {
			eventually(t, 30*time.Second, "the map of "+side.flow, func() error { // it is written behind
				v := d.verify(0, append([]string{side.flow}, how...)...)
				if want := w.count(side.to, side.from+"."+side.topic); v.Verdict != "equal" || v.Topics[0].Tally.Records != want || want == 0 {
					return fmt.Errorf("%v: %+v, there are %d records", how, v, want)
				}
				return nil
			})
		}
	}

	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ is, should, says string }{
		"another password": {"password: secret", "password: guessed", "uthentication"},
		"no user":          {", sasl: {mechanism: plain, user: kmirror, password: secret}", "", "east does not answer"},
		"another CA":       {"tls: {ca: east.pem}", "tls: {}", "certificate"},
	} {
		other := strings.Replace(string(text), c.is, c.should, 1)
		if other == string(text) {
			t.Fatalf("%s: the file says\n%s", name, text)
		}
		path := filepath.Join(filepath.Dir(d.config), "other.yaml") // beside the first, for east.pem
		if err := os.WriteFile(path, []byte(other), 0o600); err != nil {
			t.Fatal(err)
		}
		_, stderr, code := kmirrorWithin(t, time.Minute, w.dir, "verify", verifyThere, "--timeout", "5s", "--config", path)
		if code != 3 || !strings.Contains(stderr, c.says) || !strings.Contains(stderr, "verify reads both sides") {
			t.Errorf("%s: exit code %d\n%s", name, code, stderr)
		}
	}
}
