package mirror_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"kmirror/checkpoint"
	"kmirror/mirror"
)

// What does not flow falls behind, and that shows: with a pause, and after a
// restart of the instance in its midst.
func TestLagOfWhatIsPaused(t *testing.T) {
	s := newSite(t, "orders", 2)
	s.produce("orders", 2, 0, 50)
	e, stop := s.run()
	s.mirrored("east.orders", 2, 50)
	if err := e.Pause(t.Context(), "east->west", "orders"); err != nil {
		t.Fatal(err)
	}
	behind := func(e *mirror.Engine, records int64) {
		t.Helper()
		var f mirror.FlowStatus
		for range 300 {
			if f = e.Status().Flows[0]; f.LagRecords == records && f.LagSeconds > 0 && f.LagBytes > 0 && f.LagUnknown == 0 {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		lag := mirror.LagOf(f, e.Status().Life, mirror.ClusterStatus{Reachable: true}, time.Now())
		if lag.Records != records || lag.Bytes <= 0 || lag.BytesEstimated || lag.Seconds <= 0 || lag.Seconds > 60 || lag.Unknown != 0 || !lag.Complete {
			t.Errorf("the flow is %+v behind, want %d records", lag.Lag, records)
		}
		for _, p := range lag.Topics[0].Partitions {
			if p.State != "paused" || p.Mirrored != 50 || p.SourceEnd != 50+records/2 || p.Oldest == nil {
				t.Errorf("partition %+v", p)
			}
		}
	}
	time.Sleep(200 * time.Millisecond) // what the pause lets finish
	s.produce("orders", 2, 50, 30)
	behind(e, 60)
	stop()
	again, _ := s.run()
	behind(again, 60)
	if err := again.Resume(t.Context(), "east->west", "orders", mirror.ResumeOptions{Partition: -1}); err != nil {
		t.Fatal(err)
	}
	s.mirrored("east.orders", 2, 80)
	var f mirror.FlowStatus
	for range 200 {
		if f = again.Status().Flows[0]; f.LagRecords == 0 && f.LagSeconds == 0 && f.Topics[0].NewestMirrored != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("in step, the flow is %d records and %v s behind", f.LagRecords, f.LagSeconds)
}

func TestRPO(t *testing.T) {
	seen := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	now := seen.Add(time.Minute)
	newest := seen.Add(-3 * time.Second)
	flow := mirror.FlowStatus{Name: "east->west", From: "east", To: "west", Known: true, Topics: []mirror.TopicStatus{
		{Source: "b", Target: "east.b", Partitions: []mirror.PartitionStatus{{Owner: "me", LagRecords: 5, LagBytes: 50, LagBytesEstimated: true, LagSeconds: 2}, {Owner: "me", Partition: 1, LagRecords: -1}}},
		{Source: "a", Target: "east.a", NewestMirrored: &newest, Partitions: []mirror.PartitionStatus{{Owner: "me", LagRecords: 7, LagBytes: -1, LagSeconds: -1}, {Owner: "other", LagRecords: -1}}},
	}}
	var groups []checkpoint.GroupStatus
	for i := range 200 {
		groups = append(groups, checkpoint.GroupStatus{Group: fmt.Sprintf("g%03d", i), Partitions: []checkpoint.GroupPartition{{Shortfall: int64(i)}, {Shortfall: -1}}})
	}
	r := mirror.RPOOf(flow, "me", mirror.ClusterStatus{Name: "east", LastSeen: &seen}, slices.Values(groups), now)
	if r.SourceReachable || !r.AsOf.Equal(seen) || r.Complete {
		t.Errorf("reachable %v, as of %v, complete %v", r.SourceReachable, r.AsOf, r.Complete)
	}
	if r.Records != 12 || r.Bytes != 50 || !r.BytesEstimated || r.Seconds != 2 || r.Unknown != 1 {
		t.Errorf("lag %+v", r.Lag)
	}
	if r.NewestMirrored == nil || !r.NewestMirrored.Equal(newest) {
		t.Errorf("the newest mirrored is of %v", r.NewestMirrored)
	}
	if r.Topics[0].Topic != "a" || r.Topics[0].Bytes != -1 || r.Topics[0].Records != 7 {
		t.Errorf("topic a: %+v", r.Topics[0])
	}
	if r.GroupsBeyond != 199 || len(r.Groups) != mirror.MaxGroupsBeyond || r.Groups[0] != (mirror.GroupBeyond{Group: "g199", Records: 199, Partitions: 1}) {
		t.Errorf("%d groups, the first %+v", r.GroupsBeyond, r.Groups[0])
	}
	r.Beyond(slices.Values([]checkpoint.GroupStatus{{Group: "g"}, {Group: "absurd", Partitions: []checkpoint.GroupPartition{{Shortfall: math.MaxInt64}, {Shortfall: math.MaxInt64}}}}))
	if len(r.Groups) != 1 || r.Groups[0] != (mirror.GroupBeyond{Group: "absurd", Records: math.MaxInt64, Partitions: 2}) {
		t.Errorf("a group at an absurd offset: %+v", r.Groups)
	}
	if r := mirror.RPOOf(flow, "me", mirror.ClusterStatus{Reachable: true}, nil, now); r.GroupsKnown || !r.AsOf.Equal(now) {
		t.Errorf("groups known %v, as of %v", r.GroupsKnown, r.AsOf)
	}
}
