package main

import (
	"encoding/json"
	"iter"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kmirror/checkpoint"
	"kmirror/internal/console"
	"kmirror/mirror"
)

// groupsEngine answers groups, too.
type groupsEngine struct {
	fakeEngine

	groups []checkpoint.GroupStatus
}

func (e groupsEngine) Groups(string) (iter.Seq[checkpoint.GroupStatus], bool) {
	return slices.Values(e.groups), true
}

// flowDaemon serves an engine and writes a configuration with the flow
// east->west, whose clusters do not answer.
func flowDaemon(t *testing.T, engine console.Engine) (configPath string) {
	t.Helper()
	s, err := console.New(console.Options{Engine: engine, Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return config(t, "http: "+server.Listener.Addr().String()+"\nclusters: {east: {bootstrap: [127.0.0.1:1]}, west: {bootstrap: [127.0.0.1:2]}}\nflows: [{from: east, to: west}]\n")
}

// behindEngine is a flow of which one topic is behind and one stopped.
func behindEngine(reachable bool) groupsEngine {
	oldest := time.Date(2026, 1, 31, 11, 59, 40, 0, time.UTC)
	newest := time.Date(2026, 1, 31, 11, 59, 30, 0, time.UTC)
	own := func(p mirror.PartitionStatus) mirror.PartitionStatus { p.Owner = "me"; return p }
	seen := time.Now().UTC().Add(-90 * time.Second)
	return groupsEngine{
		fakeEngine: fakeEngine{status: mirror.Status{
			Life:     "me",
			Clusters: []mirror.ClusterStatus{{Name: "east", Reachable: reachable, LastSeen: &seen}, {Name: "west", Reachable: true}},
			Flows: []mirror.FlowStatus{{Name: "east->west", From: "east", To: "west", State: "degraded", Known: true, Topics: []mirror.TopicStatus{
				{Source: "audit", Target: "east.audit", NewestMirrored: &newest, Partitions: []mirror.PartitionStatus{own(mirror.PartitionStatus{State: "mirroring", Position: 70, SourceEnd: 70})}},
				{Source: "orders", Target: "east.orders", Partitions: []mirror.PartitionStatus{
					own(mirror.PartitionStatus{State: "mirroring", Position: 1000, SourceEnd: 1240, LagRecords: 240, LagBytes: 61000, LagBytesEstimated: true, LagSeconds: 0.4}),
					own(mirror.PartitionStatus{Partition: 1, State: "paused", Error: "paused by edge-1", Position: 990, SourceEnd: 1000, LagRecords: 10, LagBytes: 2600, LagSeconds: 20, Oldest: &oldest}),
				}},
				{Source: "new", Target: "east.new", Partitions: []mirror.PartitionStatus{own(mirror.PartitionStatus{State: "starting", Position: -1, SourceEnd: -1, LagRecords: -1, LagBytes: -1, LagSeconds: -1})}},
			}}},
		}},
		groups: []checkpoint.GroupStatus{
			{Group: "billing", Partitions: []checkpoint.GroupPartition{{Shortfall: 7}, {Shortfall: 3}}},
			{Group: "fraud", Partitions: []checkpoint.GroupPartition{{Shortfall: 0}}},
		},
	}
}

func TestLag(t *testing.T) {
	path := flowDaemon(t, behindEngine(true))
	golden(t, "lag.txt", kmirror(t, "", "lag", "-c", path).want(t, exitOK).out)
	golden(t, "lag-partitions.txt", kmirror(t, "", "lag", "east->west", "--partitions", "--all", "-c", path).want(t, exitOK).out)
	var lags []mirror.FlowLag
	o := kmirror(t, "", "lag", "--topic", "orders", "-o", "json", "-c", path).want(t, exitOK)
	if err := json.Unmarshal([]byte(o.out), &lags); err != nil || len(lags) != 1 || lags[0].Records != 250 || lags[0].Seconds != 20 || len(lags[0].Topics) != 1 || lags[0].Topics[0].Partitions != nil {
		t.Errorf("%v: %s", err, o.out)
	}
	kmirror(t, "", "lag", "east->moon", "-c", path).want(t, exitNotFound, "east->west")
	kmirror(t, "", "lag", "--topic", "orders", "--fail-above", "30s", "--max-lag", "250", "-c", path).want(t, exitOK)
	kmirror(t, "", "lag", "--topic", "orders", "--fail-above", "10s", "-c", path).want(t, exitCheck, "20 s behind, 10s allowed")
	kmirror(t, "", "lag", "--topic", "orders", "--max-lag", "249", "-c", path).want(t, exitCheck, "250 records behind, 249 allowed")
	kmirror(t, "", "lag", "--fail-above", "1h", "-c", path).want(t, exitCheck, "not known how far behind")
	kmirror(t, "", "lag", "--direct", "-c", path).want(t, exitUnreachable, "cluster west does not answer")
}

func TestRPO(t *testing.T) {
	path := flowDaemon(t, behindEngine(true))
	golden(t, "rpo.txt", kmirror(t, "", "rpo", "-c", path).want(t, exitOK).out)
	var found []mirror.RPO
	o := kmirror(t, "", "rpo", "-o", "json", "-c", path).want(t, exitOK)
	if err := json.Unmarshal([]byte(o.out), &found); err != nil || len(found) != 1 || found[0].Records != 250 || !found[0].SourceReachable || found[0].GroupsBeyond != 1 || found[0].Groups[0].Records != 10 {
		t.Errorf("%v: %s", err, o.out)
	}
	kmirror(t, "", "rpo", "--fail-above", "10s", "-c", path).want(t, exitCheck, "20 s behind, 10s allowed")
}

// When the source is away, what was known counts, and how old that is.
func TestRPOWithoutTheSource(t *testing.T) {
	path := flowDaemon(t, behindEngine(false))
	o := kmirror(t, "", "rpo", "-c", path).want(t, exitOK, "east does not answer since", "1 min 30 s ago", "the newest record in west is of 2026-01-31 11:59:30Z")
	stripped := regexp.MustCompile(`since [0-9:]+Z`).ReplaceAllString(o.out, "since THEN")
	stripped = regexp.MustCompile(`Z, .* ago`).ReplaceAllString(stripped, "Z, LONG ago")
	golden(t, "rpo-away.txt", stripped)
	engine := behindEngine(false)
	topics := engine.status.Flows[0].Topics
	engine.status.Flows[0].Topics = topics[1:2]
	engine.status.Flows[0].Topics[0].Partitions = topics[1].Partitions[1:]
	path = flowDaemon(t, engine)
	kmirror(t, "", "rpo", "--fail-above", "1m", "-c", path).want(t, exitCheck, "east has not answered for 1 min 30 s, 1m0s allowed")
	kmirror(t, "", "rpo", "--fail-above", "5m", "-c", path).want(t, exitOK)
	kmirror(t, "", "lag", "-c", path).want(t, exitOK, "east does not answer since", "then it was behind by 10 records")
	kmirror(t, "", "lag", "--fail-above", "1m", "-c", path).want(t, exitCheck, "east has not answered for 1 min 30 s, 1m0s allowed")
	kmirror(t, "", "lag", "--fail-above", "5m", "-c", path).want(t, exitOK)
	kmirror(t, "", "lag", "--fail-above", "5m", "--max-lag", "1000", "-c", path).want(t, exitOK)
	kmirror(t, "", "lag", "--max-lag", "1000", "-c", path).want(t, exitCheck, "east has not answered for 1 min 30 s: how many records it has is not known")
}

// Without a daemon the clusters are asked; without the source the target alone.
func TestLagFromTheClusters(t *testing.T) {
	path, east, _ := twoClusters(t)
	kmirror(t, strings.Repeat("one\n", 30), "produce", "east", "orders", "-c", path).want(t, exitOK)
	o := kmirror(t, "", "lag", "--partitions", "-o", "json", "-c", path).want(t, exitOK)
	var lags []mirror.FlowLag
	if err := json.Unmarshal([]byte(o.out), &lags); err != nil || len(lags) != 1 {
		t.Fatalf("%v: %s", err, o.out)
	}
	l := lags[0]
	if l.Records != 30 || l.Bytes <= 0 || l.BytesEstimated || l.Seconds < 0 || l.Seconds > 60 || l.Oldest == nil || !l.Complete || l.Unknown != 0 {
		t.Errorf("lag %+v", l.Lag)
	}
	kmirror(t, "", "lag", "-c", path).want(t, exitOK, "orders", "30", "1 topic in step")
	kmirror(t, "", "rpo", "-c", path).want(t, exitOK, "a failover to west now would lose 30 records")
	kmirror(t, "", "lag", "--topic", "nope", "-c", path).want(t, exitNotFound, `no topic "nope"`)
	east.Close()
	kmirror(t, "", "rpo", "--timeout", "2s", "-c", path).want(t, exitOK, "no daemon here knows")
	kmirror(t, "", "rpo", "--timeout", "2s", "--fail-above", "1h", "-c", path).want(t, exitCheck)
	kmirror(t, "", "lag", "--timeout", "2s", "-c", path).want(t, exitUnreachable, "cluster east does not answer")
}

func TestAgeBetween(t *testing.T) {
	for name, c := range map[string]struct {
		steps       []int64
		end, offset int64
		want        float64
	}{
		"younger than a second":      {[]int64{90}, 100, 95, 0.5},
		"at a step":                  {[]int64{90}, 100, 90, 1},
		"between two steps":          {[]int64{90, 80}, 100, 85, 1.5},
		"nothing came for a while":   {[]int64{100, 100, 80}, 100, 90, 3},
		"older than all steps asked": {[]int64{90}, 100, 10, -1},
		"nothing asked":              {nil, 100, 10, -1},
	} {
		if got := ageBetween(c.steps, c.end, c.offset); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := ageBetween(make([]int64, 0), 0, 0); got != -1 {
		t.Errorf("an empty partition: %v", got)
	}
}
