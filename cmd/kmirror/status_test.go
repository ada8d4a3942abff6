package main

import (
	"encoding/json"
	"iter"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kmirror/checkpoint"
	"kmirror/internal/console"
	"kmirror/mirror"
)

// fakeEngine answers a fixed status.
type fakeEngine struct {
	status    mirror.Status
	incidents []mirror.Incident
}

func (e fakeEngine) Status() mirror.Status                                  { return e.status }
func (e fakeEngine) Ready() bool                                            { return true }
func (e fakeEngine) Incidents(uint64) []mirror.Incident                     { return e.incidents }
func (e fakeEngine) Groups(string) (iter.Seq[checkpoint.GroupStatus], bool) { return nil, false }

func daemonWith(t *testing.T, status mirror.Status) (configPath string) {
	t.Helper()
	return daemonOf(t, fakeEngine{status: status})
}

func daemonOf(t *testing.T, engine fakeEngine) (configPath string) {
	t.Helper()
	s, err := console.New(console.Options{Engine: engine, Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return config(t, "http: "+server.Listener.Addr().String()+"\nclusters: {east: {bootstrap: [127.0.0.1:1]}}\n")
}

func busyStatus() mirror.Status {
	return mirror.Status{
		Instance: "edge-1", Version: "v1.0.0", Leading: true, Term: 8, Members: []string{"edge-1/3f9a", "edge-2/11bb"},
		Clusters: []mirror.ClusterStatus{
			{Name: "east", Kind: "embedded", Addresses: []string{"127.0.0.1:19092"}, Reachable: true},
			{Name: "hq", Kind: "external", Addresses: []string{"kafka-1.example.org:9092", "kafka-2.example.org:9092"}, Error: "connection refused"},
		},
		Flows: []mirror.FlowStatus{
			{Name: "east->hq", From: "east", To: "hq", State: "degraded", Records: 1234567, RecordsPerSecond: 12345.6, BytesPerSecond: 6.4e6, LagRecords: 312, LagBytes: 160_000, LagBytesEstimated: true, LagSeconds: 0.012, Topics: []mirror.TopicStatus{
				{Source: "orders", Target: "east.orders", Records: 1234567, RecordsPerSecond: 12345.6, LagRecords: 312, LagSeconds: 0.012, Partitions: make([]mirror.PartitionStatus, 12)},
				{Source: "evil\x1b[2J", Target: "east.evil", LagRecords: -1, LagSeconds: -1, Error: "one partition does not flow", Partitions: []mirror.PartitionStatus{
					{Partition: 3, State: "stopped", Error: "topic was created again", Position: 12, SourceEnd: -1},
				}},
			}},
			{Name: "hq->east", From: "hq", To: "east", State: "starting", LagRecords: -1, LagBytes: -1, LagSeconds: -1},
		},
		Maps:    []mirror.MapStatus{{Cluster: "hq", Partitions: 13, Runs: 20480, Memory: 1_310_720, Records: 5210}},
		Skipped: []mirror.SkippedRecords{{Cluster: "hq", Topic: "__kmirror_offset_map", Records: 2, First: "partition 3, offset 17: unknown kind 99"}},
	}
}

func TestStatus(t *testing.T) {
	o := kmirror(t, "", "status", "-c", daemonWith(t, busyStatus())).want(t, exitOK)
	golden(t, "status.txt", o.out)
}

func TestStatusOfOneFlow(t *testing.T) {
	path := daemonWith(t, busyStatus())
	if o := kmirror(t, "", "status", "hq->east", "-c", path).want(t, exitOK); strings.Contains(o.out, "orders") {
		t.Errorf("it shows the other flow:\n%s", o.out)
	}
	kmirror(t, "", "status", "east->moon", "-c", path).want(t, exitNotFound, "east->hq")
	var status mirror.Status
	o := kmirror(t, "", "status", "east->hq", "-c", path, "-o", "json").want(t, exitOK)
	if err := json.Unmarshal([]byte(o.out), &status); err != nil || len(status.Flows) != 1 || status.Flows[0].Records != 1234567 {
		t.Errorf("%v: %+v", err, status)
	}
}

func TestStatusWithoutFlows(t *testing.T) {
	kmirror(t, "", "status", "-c", daemonWith(t, mirror.Status{Instance: "edge-1", Started: time.Now()})).want(t, exitOK, "no flows", "up 0s")
}

func TestStatusOfManyTopics(t *testing.T) {
	status := mirror.Status{Flows: []mirror.FlowStatus{{Name: "a->b", Topics: make([]mirror.TopicStatus, 50)}}}
	status.Flows[0].Topics[49] = mirror.TopicStatus{Source: "troubled", Error: "does not flow"}
	path := daemonWith(t, status)
	kmirror(t, "", "status", "-c", path).want(t, exitOK, "and 29 topics more; --all", "troubled")
	if o := kmirror(t, "", "status", "--all", "-c", path).want(t, exitOK); strings.Contains(o.out, "more") {
		t.Errorf("--all leaves some out:\n%s", o.out)
	}
}

func TestStatusWithoutDaemon(t *testing.T) {
	path := config(t, "http: 127.0.0.1:1\nclusters: {east: {bootstrap: [127.0.0.1:1]}}\n")
	kmirror(t, "", "status", "-c", path).want(t, exitUnreachable, "127.0.0.1:1", "kmirror run")
}
