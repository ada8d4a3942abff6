package mirror_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
	"kmirror/mirror"
	"kmirror/topology"
	"kmirror/topology/consul"
)

// site is two fake clusters and the engines that ran between them.
type site struct {
	t          *testing.T
	east, west *kfake.Cluster
	config     *topology.Config
	budget     int64       // 0: the default
	live       mirror.Live // nil: alone
}

// newSite makes two clusters and a flow between them. The double of a cluster ends a
// producer's old epochs in all partitions at once, which no broker does, so that the
// flow detects: the fence is told by the simulation, and by real brokers in
// integration.
func newSite(t *testing.T, topic string, partitions int32) *site {
	t.Helper()
	s := &site{t: t}
	var err error
	if s.east, err = kfake.NewCluster(kfake.ClusterID("e"), kfake.NumBrokers(3), kfake.SeedTopics(partitions, topic)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.east.Close)
	if s.west, err = kfake.NewCluster(kfake.ClusterID("w"), kfake.NumBrokers(3)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.west.Close)
	text := fmt.Sprintf("instance: test\nclusters:\n  east: {bootstrap: [%q]}\n  west: {bootstrap: [%q]}\nflows:\n  - {from: east, to: west, heartbeats: false, fence: detect}\n",
		s.east.ListenAddrs()[0], s.west.ListenAddrs()[0])
	if s.config, err = topology.Parse("test.yaml", []byte(text), func(string) (string, bool) { return "", false }); err != nil {
		t.Fatal(err)
	}
	return s
}

// run starts an engine and returns it with what stops it and waits.
func (s *site) run() (*mirror.Engine, func()) {
	s.t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{s.t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	clusters := map[string]*kafka.Cluster{}
	for _, c := range s.config.Clusters {
		k, err := kafka.New(c, kafka.Options{ClientID: "test", Logger: log})
		if err != nil {
			s.t.Fatal(err)
		}
		clusters[c.Name] = k
	}
	if s.config.DataDir == topology.Default().DataDir {
		s.config.DataDir = s.t.TempDir()
	}
	registry := prometheus.NewRegistry()
	live := s.live
	if live == nil {
		live = consul.NewLocal("test")
	}
	e, err := mirror.New(mirror.Options{Topology: s.config, Clusters: clusters, Live: live, Logger: log, Registerer: registry, Budget: s.budget})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				s.t.Errorf("run: %v", err)
			}
		case <-time.After(30 * time.Second):
			s.t.Error("the engine does not stop")
		}
		if _, err := registry.Gather(); err != nil {
			s.t.Errorf("metrics: %v", err)
		}
		for _, k := range clusters {
			_ = k.Close()
		}
	}
	s.t.Cleanup(stop)
	return e, stop
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func (s *site) client(c *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	s.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(cl.Close)
	return cl
}

// produce writes values first..first+n-1 to each partition.
func (s *site) produce(topic string, partitions int32, first, n int) {
	s.t.Helper()
	cl := s.client(s.east)
	for p := range partitions {
		for i := range n {
			cl.Produce(context.Background(), &kgo.Record{Topic: topic, Partition: p, Value: fmt.Appendf(nil, "%d", first+i)}, func(_ *kgo.Record, err error) {
				if err != nil {
					s.t.Errorf("produce: %v", err)
				}
			})
		}
	}
	if err := cl.Flush(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// mirrored reads total records of each partition of the target topic and
// requires them to be 0, 1, 2, ... in order, and nothing after them.
func (s *site) mirrored(topic string, partitions int32, total int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 40*time.Second)
	defer cancel()
	cl := s.client(s.west, kgo.ConsumeTopics(topic), kgo.FetchMaxWait(100*time.Millisecond), kgo.MetadataMinAge(50*time.Millisecond), kgo.MetadataMaxAge(200*time.Millisecond))
	next := make([]int, partitions)
	for count := 0; count < total*int(partitions); {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			s.t.Fatalf("%d of %d records arrived: %v", count, total*int(partitions), next)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if got, want := string(r.Value), fmt.Sprint(next[r.Partition]); got != want {
				s.t.Fatalf("%s/%d at %d: got record %s, want %s", topic, r.Partition, r.Offset, got, want)
			}
			next[r.Partition]++
			count++
		})
	}
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		s.t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset != int64(total) {
			s.t.Errorf("%s/%d ends at %d, want %d", topic, o.Partition, o.Offset, total)
		}
	})
}

func TestEngineMirrorsAndGoesOnAfterARestart(t *testing.T) {
	s := newSite(t, "orders", 4)
	s.produce("orders", 4, 0, 300)
	_, stop := s.run()
	s.mirrored("east.orders", 4, 300)
	stop()
	s.produce("orders", 4, 300, 200)
	e, _ := s.run()
	s.mirrored("east.orders", 4, 500)
	for _, f := range e.Status().Flows {
		if f.State != "mirroring" || f.Error != "" {
			t.Errorf("flow is %s: %s", f.State, f.Error)
		}
	}
}

// TestEngineSurvivesATroubledTarget answers produce requests with errors that a
// broker gives when leaders move and replicas lag, and drops connections.
func TestEngineSurvivesATroubledTarget(t *testing.T) {
	s := newSite(t, "orders", 3)
	n := 0
	s.west.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		s.west.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		n++
		switch {
		case n%11 == 0:
			return nil, fmt.Errorf("cut"), true
		case n%5 == 0:
			resp := r.ResponseKind().(*kmsg.ProduceResponse)
			for _, rt := range r.Topics {
				t := kmsg.NewProduceResponseTopic()
				t.Topic, t.TopicID = rt.Topic, rt.TopicID
				for _, rp := range rt.Partitions {
					p := kmsg.NewProduceResponseTopicPartition()
					p.Partition, p.ErrorCode, p.BaseOffset = rp.Partition, kerr.NotLeaderForPartition.Code, -1
					t.Partitions = append(t.Partitions, p)
				}
				resp.Topics = append(resp.Topics, t)
			}
			return resp, nil, true
		}
		return nil, nil, false
	})
	s.run()
	for i := range 20 {
		s.produce("orders", 3, i*20, 20)
	}
	s.mirrored("east.orders", 3, 400)
}

func TestEngineFollowsAGrowingTopic(t *testing.T) {
	s := newSite(t, "orders", 1)
	s.run()
	s.produce("orders", 1, 0, 10)
	s.mirrored("east.orders", 1, 10)
	if _, err := kadm.NewClient(s.client(s.east)).UpdatePartitions(t.Context(), 3, "orders"); err != nil {
		t.Fatal(err)
	}
	cl := s.client(s.east, kgo.MetadataMinAge(10*time.Millisecond))
	for p := int32(1); p < 3; p++ {
		for i := range 10 {
			if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: p, Value: fmt.Appendf(nil, "%d", i)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.mirrored("east.orders", 3, 10)
}

// TestEngineStopsAtASourceCreatedAnew: what follows in the copy would not be
// what its consumers had read, so somebody has to decide.
func TestEngineStopsAtASourceCreatedAnew(t *testing.T) {
	s := newSite(t, "orders", 1)
	e, _ := s.run()
	s.produce("orders", 1, 0, 10)
	s.mirrored("east.orders", 1, 10)
	admin := kadm.NewClient(s.client(s.east))
	if _, err := admin.DeleteTopics(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopics(t.Context(), 1, 1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	s.produce("orders", 1, 0, 5)
	deadline := time.After(20 * time.Second)
	for {
		status := e.Status()
		if topics := status.Flows[0].Topics; len(topics) == 1 && len(topics[0].Partitions) == 1 {
			if p := topics[0].Partitions[0]; p.State == "stopped" && strings.Contains(p.Error, "created anew") {
				break
			}
		}
		select {
		case <-deadline:
			t.Fatalf("not stopped: %+v", status.Flows)
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.mirrored("east.orders", 1, 10)
}
