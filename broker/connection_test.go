package broker_test

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker"
	"kmirror/internal/wire"
)

func TestApiVersions(t *testing.T) {
	c := dial(t, start(t))
	for version := int16(0); version <= 4; version++ {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1.0"
		resp := ask[*kmsg.ApiVersionsResponse](c, version, req)
		wantCode(t, "ApiVersions", resp.ErrorCode, nil)
		if len(resp.ApiKeys) < 35 {
			t.Errorf("version %d lists %d keys", version, len(resp.ApiKeys))
		}
		for _, k := range resp.ApiKeys {
			if k.ApiKey == 0 && (k.MinVersion != 0 || k.MaxVersion != 13) {
				t.Errorf("Produce is advertised as %d-%d, want 0-13 (KAFKA-18659)", k.MinVersion, k.MaxVersion)
			}
			if k.ApiKey == 68 {
				t.Errorf("key %d is advertised, but not offered", k.ApiKey)
			}
		}
		for _, f := range resp.FinalizedFeatures {
			if f.Name == "group.version" {
				t.Errorf("%s is finalized, but not offered", f.Name)
			}
			if f.Name == "transaction.version" && f.MaxVersionLevel != 2 {
				t.Errorf("transaction.version is %d", f.MaxVersionLevel)
			}
		}
		for _, f := range resp.SupportedFeatures {
			if version == 3 && f.MinVersion == 0 {
				t.Errorf("version 3 lists %s with a minimum of 0 (KAFKA-17011)", f.Name)
			}
		}
		if version >= 3 && (resp.FinalizedFeaturesEpoch < 0 || len(resp.FinalizedFeatures) == 0) {
			t.Errorf("features %+v in epoch %d", resp.FinalizedFeatures, resp.FinalizedFeaturesEpoch)
		}
	}
	bad := kmsg.NewPtrApiVersionsRequest()
	bad.ClientSoftwareName, bad.ClientSoftwareVersion = "-", "1"
	wantCode(t, "a software name of one dash", ask[*kmsg.ApiVersionsResponse](c, 3, bad).ErrorCode, kerr.InvalidRequest)
}

// A client that is newer than we are gets a v0 answer of exactly 16 bytes and
// goes on with the same connection (KIP-511).
func TestApiVersionsOfTheFuture(t *testing.T) {
	c := dial(t, start(t))
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1"
	c.send(5, req)
	frame, err := wire.ReadFrame(c, nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if len(frame) != 16 {
		t.Errorf("the response has %d bytes, want 16", len(frame))
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	if err := resp.ReadFrom(frame[4:]); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "version 5", resp.ErrorCode, kerr.UnsupportedVersion)
	if len(resp.ApiKeys) != 1 || resp.ApiKeys[0].ApiKey != 18 || resp.ApiKeys[0].MaxVersion != 4 {
		t.Errorf("keys %+v", resp.ApiKeys)
	}
	wantCode(t, "after that", ask[*kmsg.ApiVersionsResponse](c, 0, req).ErrorCode, nil)
}

func TestWhatIsNotOfferedClosesTheConnection(t *testing.T) {
	node := start(t)
	for _, tc := range []struct {
		name    string
		version int16
		req     kmsg.Request
	}{
		{"Produce 2", 2, kmsg.NewPtrProduceRequest()},
		{"Fetch 3", 3, kmsg.NewPtrFetchRequest()},
		{"ListOffsets 0", 0, kmsg.NewPtrListOffsetsRequest()},
		{"ConsumerGroupHeartbeat", 0, kmsg.NewPtrConsumerGroupHeartbeatRequest()},
		{"SaslAuthenticate", 0, kmsg.NewPtrSASLAuthenticateRequest()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, node)
			c.t = t
			c.send(tc.version, tc.req)
			c.mustClose()
		})
	}
}

func TestSaslHandshakeOnAPlainListener(t *testing.T) {
	c := dial(t, start(t))
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Mechanism = "PLAIN"
	for version := int16(0); version <= 1; version++ {
		resp := ask[*kmsg.SASLHandshakeResponse](c, version, req)
		wantCode(t, "handshake", resp.ErrorCode, kerr.IllegalSaslState)
	}
}

// What a stranger sends costs the stranger's connection and nobody else's.
func TestGarbage(t *testing.T) {
	node := start(t)
	bystander := dial(t, node)
	size := func(n int32) string { return string(binary.BigEndian.AppendUint32(nil, uint32(n))) }
	for _, tc := range []struct{ name, bytes string }{
		{"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
		{"two gigabytes", size(1<<31 - 1)},
		{"a negative size", size(-5)},
		{"size zero", size(0)},
		{"a header cut off", size(9) + "\x00\x12\x00\x00\x00\x00\x00\x01\xff"},
		{"an unknown key", size(10) + "\x7f\x7f\x00\x00\x00\x00\x00\x01\xff\xff"},
		{"a negative key", size(10) + "\xff\xff\x00\x00\x00\x00\x00\x01\xff\xff"},
		{"a client id that is too long", size(10) + "\x00\x12\x00\x00\x00\x00\x00\x01\x7f\xff"},
		{"a body cut off", size(12) + "\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x00\x00"},
		{"an array of two billion", size(14) + "\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x7f\xff\xff\xff"},
		{"a version below zero", size(10) + "\x00\x03\xff\xff\x00\x00\x00\x01\xff\xff"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, node)
			c.t = t
			if _, err := c.Write([]byte(tc.bytes)); err != nil {
				t.Fatal(err)
			}
			c.mustClose()
		})
	}
	half := dial(t, node)
	if _, err := half.Write([]byte(size(1000) + "only a little")); err != nil {
		t.Fatal(err)
	}
	half.Close()
	wantCode(t, "the bystander", ask[*kmsg.ApiVersionsResponse](bystander, 0, kmsg.NewPtrApiVersionsRequest()).ErrorCode, nil)
}

// Many requests at once: the answers come in the order of the requests, also
// those of the produces that wait for the disk between the others.
func TestResponsesComeInOrder(t *testing.T) {
	c := dial(t, start(t))
	createTopic(c, "ordered", 1)
	type sent struct {
		correlation int32
		version     int16
		resp        kmsg.Response
	}
	var all []sent
	send := func(version int16, req kmsg.Request) {
		c.send(version, req)
		all = append(all, sent{c.correlation, version, req.ResponseKind()})
	}
	for range 50 {
		for range 3 {
			send(9, produceRequest("ordered", [16]byte{}, 0, -1, batch(t, wire.CodecNone, "x")))
		}
		c.send(9, produceRequest("ordered", [16]byte{}, 0, 0, batch(t, wire.CodecNone, "no answer"))) // acks=0
		send(1, kmsg.NewPtrMetadataRequest())
		send(12, fetchRequest("ordered", [16]byte{}, 0))
	}
	offset := int64(0)
	for i, s := range all {
		c.receive(s.correlation, s.version, s.resp)
		if p, ok := s.resp.(*kmsg.ProduceResponse); ok {
			if got := p.Topics[0].Partitions[0].BaseOffset; got != offset {
				t.Fatalf("response %d: offset %d, want %d", i, got, offset)
			}
			offset++
			if i%5 == 2 {
				offset++ // the one without an answer
			}
		}
	}
}

func TestConnectionLimit(t *testing.T) {
	node := start(t, func(c *broker.Config) { c.Limits.Connections = 2 })
	first, second := dial(t, node), dial(t, node)
	for _, c := range []*client{first, second} {
		ask[*kmsg.ApiVersionsResponse](c, 0, kmsg.NewPtrApiVersionsRequest())
	}
	third, err := net.Dial("tcp", node.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if err := third.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("the third connection was served")
	}
	ask[*kmsg.ApiVersionsResponse](first, 0, kmsg.NewPtrApiVersionsRequest())
}

// Requests over the budget wait for each other; none is lost.
func TestInFlightBudget(t *testing.T) {
	node := start(t, func(c *broker.Config) { c.Limits.InFlightBytes = 300 << 10 })
	setup := dial(t, node)
	createTopic(setup, "big", 1)
	big := strings.Repeat("x", 200<<10)
	done := make(chan int16, 8)
	for range 8 {
		c := dial(t, node)
		go func() { done <- produce(c, "big", batch(t, wire.CodecNone, big)).ErrorCode }()
	}
	for range 8 {
		wantCode(t, "produce", <-done, nil)
	}
}

func TestRequestSizeLimit(t *testing.T) {
	node := start(t, setting("socket.request.max.bytes", "10000"))
	c := dial(t, node)
	createTopic(c, "small", 1)
	c.send(9, produceRequest("small", [16]byte{}, 0, -1, batch(t, wire.CodecNone, strings.Repeat("x", 20000))))
	c.mustClose()
}

func TestPortInUse(t *testing.T) {
	node := start(t)
	_, err := broker.Open(broker.Config{Cluster: "other", NodeID: 1, Listen: node.Addr(), DataDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), node.Addr()) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("error %v, want one that names %s and what to do", err, node.Addr())
	}
}

func TestCloseEndsParkedRequests(t *testing.T) {
	dir := t.TempDir()
	registry := prometheus.NewRegistry()
	node, err := broker.Open(broker.Config{Cluster: "test", NodeID: 1, Listen: "127.0.0.1:0", DataDir: dir, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- node.Run(t.Context()) }()
	c := dial(t, node)
	createTopic(c, "t", 1)
	req := fetchRequest("t", [16]byte{}, 0)
	req.MaxWaitMillis = 60_000
	c.send(12, req)
	idle := dial(t, node)
	ask[*kmsg.ApiVersionsResponse](idle, 0, kmsg.NewPtrApiVersionsRequest())
	for metric(t, registry, "kmirror_broker_requests_total", "Fetch") == 0 { // until it has arrived
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	if err := node.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("close took %v", took)
	}
	c.receive(c.correlation, 12, req.ResponseKind()) // the parked fetch was answered
	idle.mustClose()
}

// metric is the value of a counter with that label, 0 when there is none.
func metric(t testing.TB, registry *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	c := dial(t, start(t, func(c *broker.Config) { c.Registerer = registry }))
	fetch(c, "missing", 0)
	if got := metric(t, registry, "kmirror_broker_requests_total", "Fetch"); got != 1 {
		t.Errorf("%v fetches counted, want 1", got)
	}
	if got := metric(t, registry, "kmirror_broker_errors_total", "Fetch"); got != 1 {
		t.Errorf("%v errors of Fetch counted, want 1", got)
	}
}
