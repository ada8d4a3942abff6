package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// site is one fake cluster on a network of its own, as we see it and as an
// administrator with another client does.
type site struct {
	fake  *kfake.Cluster
	ours  *kafka.Cluster
	dial  func(context.Context, string, string) (net.Conn, error)
	admin *kadm.Client
}

func newSite(t *testing.T, name string, options ...kfake.Opt) *site {
	t.Helper()
	var network kfake.VirtualNetwork
	options = append([]kfake.Opt{kfake.ListenFn(network.Listen), kfake.Ports(9092, 9093, 9094), kfake.SeedTopics(3, "orders", "east.orders", "other")}, options...)
	fake, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := kafka.New(&topology.Cluster{Name: name, Bootstrap: fake.ListenAddrs()}, kafka.Options{Dial: network.DialContext})
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.Dialer(network.DialContext))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		_ = ours.Close()
		fake.Close()
	})
	return &site{fake: fake, ours: ours, dial: network.DialContext, admin: kadm.NewClient(client)}
}

func (s *site) commit(t *testing.T, group, topic string, partition int32, offset int64) {
	t.Helper()
	all := kadm.Offsets{}
	all.Add(kadm.Offset{Topic: topic, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: "from " + group})
	if err := s.admin.CommitAllOffsets(t.Context(), group, all); err != nil {
		t.Fatal(err)
	}
}

// committed returns what a group has committed; -1 is nothing.
func (s *site) committed(t *testing.T, group, topic string, partition int32) int64 {
	t.Helper()
	all, err := s.admin.FetchOffsets(t.Context(), group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		t.Fatal(err)
	}
	o, ok := all.Lookup(topic, partition)
	if !ok {
		return -1
	}
	return o.At
}

// join makes a member of a group, which stays until it leaves.
func (s *site) join(t *testing.T, group, topic string) (leave func()) {
	t.Helper()
	member, err := kgo.NewClient(kgo.SeedBrokers(s.fake.ListenAddrs()...), kgo.Dialer(s.dial), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for !member.PollFetches(t.Context()).IsClientClosed() {
		}
	}()
	return member.Close
}

// story is a flow from east to west whose orders/0 is mirrored: source offset
// 10*i+j stands at target offset 9*i+j for j<9, and 10*i+9 is a marker.
type story struct {
	east, west *site
	recorder   *checkpoint.Recorder
	flow       *topology.Flow
	mirrored   int64 // stretches of orders/0
	syncer     *checkpoint.Syncer
	target     checkpoint.SyncCluster // between the syncer and west
	stop       func()
}

func tell(t *testing.T, change func(*topology.Flow), fn func(t *testing.T, s *story), options ...kfake.Opt) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &story{east: newSite(t, "east", options...), west: newSite(t, "west", options...)}
		flow, err := topology.NewFlow("east", "west", change)
		if err != nil {
			t.Fatal(err)
		}
		s.flow, s.target = flow, s.west.ours
		if err := s.west.ours.EnsureInternalTopic(t.Context(), checkpoint.MapTopic, checkpoint.MapPartitions, checkpoint.MapTopicConfigs()); err != nil {
			t.Fatal(err)
		}
		s.recorder = checkpoint.NewRecorder(s.west.ours, quiet())
		s.recorder.Resume(partitionKey(0), &checkpoint.Runs{})
		stop := start(t, s.recorder.Run)
		s.mirror(t, 10)
		s.begin(t)
		fn(t, s)
		s.stop()
		stop()
	})
}

// mirror mirrors n stretches more.
func (s *story) mirror(t *testing.T, n int64) {
	t.Helper()
	for range n {
		if err := s.recorder.Acked(partitionKey(0), checkpoint.Run{Source: 10 * s.mirrored, Target: 9 * s.mirrored, Count: 9}); err != nil {
			t.Fatal(err)
		}
		s.mirrored++
	}
	if err := s.recorder.Passed(partitionKey(0), 10*s.mirrored); err != nil {
		t.Fatal(err)
	}
}

// begin begins a new life of index and syncer.
func (s *story) begin(t *testing.T) {
	t.Helper()
	index := checkpoint.NewIndex(s.west.ours, quiet())
	s.syncer = checkpoint.NewSyncer(checkpoint.Routes{Forward: checkpoint.Route{Flow: s.flow, Maps: index}}, s.east.ours, s.target, quiet())
	stopIndex, stopSyncer := start(t, index.Run), start(t, s.syncer.Run)
	s.stop = func() {
		stopSyncer()
		stopIndex()
	}
}

// expect waits the two seconds that a sync may take, and compares.
func (s *story) expect(t *testing.T, group string, state checkpoint.State, target int64) {
	t.Helper()
	time.Sleep(2 * time.Second)
	if got := s.west.committed(t, group, "east.orders", 0); got != target {
		t.Errorf("the target's group stands at %d, want %d", got, target)
	}
	if got := s.status(t, group); got.State != string(state) {
		t.Errorf("state %q, want %q: %+v", got.State, state, got)
	}
}

func (s *story) status(t *testing.T, group string) checkpoint.GroupStatus {
	t.Helper()
	for _, g := range s.syncer.Groups() {
		if g.Group == group {
			return g
		}
	}
	t.Errorf("group %s is not there: %+v", group, s.syncer.Groups())
	return checkpoint.GroupStatus{}
}

func TestAGroupFollowsItsSource(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		s.east.commit(t, "billing", "orders", 0, 23)
		s.expect(t, "billing", checkpoint.InStep, 20+1) // 23 = 2 stretches and 3: 18 + 3
		want := checkpoint.GroupStatus{Group: "billing", State: "in-step", Partitions: []checkpoint.GroupPartition{
			{Topic: "orders", TargetTopic: "east.orders", State: "in-step", SourceOffset: 23, Translated: 21, TargetOffset: 21, Back: 23, Exact: true, OursSource: 23, OursTarget: 21},
		}}
		if diff := cmp.Diff(want, s.status(t, "billing"), cmpopts.IgnoreTypes(time.Time{})); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		s.east.commit(t, "billing", "orders", 0, 29) // behind the last record of a stretch, at the marker
		s.expect(t, "billing", checkpoint.InStep, 27)
		s.east.commit(t, "billing", "orders", 0, 100) // everything, the last marker too
		s.expect(t, "billing", checkpoint.InStep, 90)
		s.east.commit(t, "billing", "orders", 0, 50) // back
		s.expect(t, "billing", checkpoint.InStep, 45)

		all, err := s.west.admin.FetchOffsets(t.Context(), "billing")
		if o, _ := all.Lookup("east.orders", 0); err != nil || o.Metadata != "from billing" || o.LeaderEpoch != -1 {
			t.Errorf("committed %+v, %v", o, err)
		}
	})
}

func TestAGroupBeyondTheMirroredEndWaitsThere(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		s.east.commit(t, "billing", "orders", 0, 123)
		s.expect(t, "billing", checkpoint.Waiting, 90)
		if got := s.status(t, "billing").Partitions[0].Shortfall; got != 23 {
			t.Errorf("shortfall %d, want 23", got)
		}
		s.mirror(t, 2)
		s.expect(t, "billing", checkpoint.Waiting, 108)
		s.mirror(t, 1)
		s.expect(t, "billing", checkpoint.InStep, 111)
		s.east.commit(t, "reports", "orders", 1, 5) // of this partition nothing is mirrored
		time.Sleep(2 * time.Second)
		if got := s.status(t, "reports"); got.State != "waiting" || got.Partitions[0].Translated != -1 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAGroupWithMembersOnTheTargetIsNotTouched(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		s.east.commit(t, "billing", "orders", 0, 10)
		s.expect(t, "billing", checkpoint.InStep, 9)
		leave := s.west.join(t, "billing", "east.orders")
		time.Sleep(5 * time.Second)
		s.east.commit(t, "billing", "orders", 0, 20)
		s.expect(t, "billing", checkpoint.ActiveAtTarget, 9)
		if c := s.lastCheckpoint(t, "billing"); c.Upstream != 20 || c.Downstream != 18 {
			t.Errorf("the checkpoint says %+v: it is a translation, whoever is on the target", c)
		}
		leave()
		time.Sleep(time.Second)
		s.expect(t, "billing", checkpoint.InStep, 18)
	})
}

// Members that join between our look and our commit: the broker refuses.
func TestARefusedCommitIsAnActiveGroup(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		s.west.fake.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
			return refusal(req, kerr.UnknownMemberID.Code), nil, true
		})
		s.stop()
		s.east.commit(t, "billing", "orders", 0, 10)
		s.begin(t)
		time.Sleep(600 * time.Millisecond)
		if got := s.status(t, "billing"); got.State != "active-at-target" {
			t.Errorf("got %+v", got)
		}
		s.expect(t, "billing", checkpoint.InStep, 9) // it has left again
	})
}

func refusal(req kmsg.Request, code int16) kmsg.Response {
	commit := req.(*kmsg.OffsetCommitRequest)
	resp := commit.ResponseKind().(*kmsg.OffsetCommitResponse)
	for _, t := range commit.Topics {
		answer := kmsg.OffsetCommitResponseTopic{Topic: t.Topic}
		for _, p := range t.Partitions {
			answer.Partitions = append(answer.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: code})
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

func TestWhatOthersCommittedOnTheTarget(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		s.east.commit(t, "billing", "orders", 0, 20)
		s.expect(t, "billing", checkpoint.InStep, 18)
		s.west.commit(t, "billing", "east.orders", 0, 36) // a failover: read on in west
		time.Sleep(5 * time.Second)
		s.expect(t, "billing", checkpoint.Diverged, 36)
		s.east.commit(t, "billing", "orders", 0, 10) // back on the source: not our commit that stands there
		s.expect(t, "billing", checkpoint.Diverged, 36)
		s.east.commit(t, "billing", "orders", 0, 50) // further than the target: somebody moved that all the same
		s.expect(t, "billing", checkpoint.Diverged, 36)
		if p := s.status(t, "billing").Partitions[0]; p.SourceOffset != 50 || p.Translated != 45 || p.TargetOffset != 36 || p.Back != 40 || p.OursTarget != 18 {
			t.Errorf("shown as %+v", p)
		}
		s.east.commit(t, "billing", "orders", 0, 40) // the same place: ours again
		s.expect(t, "billing", checkpoint.InStep, 36)
		s.east.commit(t, "billing", "orders", 0, 50)
		s.expect(t, "billing", checkpoint.InStep, 45)
		s.west.commit(t, "billing", "east.orders", 0, 3) // reset by hand
		time.Sleep(5 * time.Second)
		s.expect(t, "billing", checkpoint.Diverged, 3)
		s.east.commit(t, "billing", "orders", 0, 60)
		s.expect(t, "billing", checkpoint.Diverged, 3)
		if _, err := s.west.admin.DeleteGroup(t.Context(), "billing"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		s.expect(t, "billing", checkpoint.InStep, 54)
	})
}

func TestARestartRemembersWhatItCommitted(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		s.east.commit(t, "billing", "orders", 0, 50)
		s.east.commit(t, "reports", "orders", 0, 50)
		s.expect(t, "billing", checkpoint.InStep, 45)
		s.stop()
		before := len(s.checkpoints(t))

		s.east.commit(t, "billing", "orders", 0, 20)      // back, while nobody looks
		s.west.commit(t, "reports", "east.orders", 0, 72) // moved on, while nobody looks
		s.east.commit(t, "reports", "orders", 0, 20)
		s.begin(t)
		s.expect(t, "billing", checkpoint.InStep, 18)
		s.expect(t, "reports", checkpoint.Diverged, 72)
		if n := len(s.checkpoints(t)) - before; n != 2 {
			t.Errorf("%d checkpoints after the restart, want those of the two changes", n)
		}
	})
}

// The answer to a commit is lost, and with it the process: the next life finds
// its commit carried out, or not, and takes neither for somebody else's.
func TestACommitWithoutAnswer(t *testing.T) {
	for _, carriedOut := range []bool{true, false} {
		t.Run(fmt.Sprint("carried out ", carriedOut), func(t *testing.T) {
			tell(t, nil, func(t *testing.T, s *story) {
				s.east.commit(t, "billing", "orders", 0, 20)
				s.expect(t, "billing", checkpoint.InStep, 18)
				s.stop()
				s.target = &mute{SyncCluster: s.west.ours, carriedOut: carriedOut}
				s.begin(t)
				s.east.commit(t, "billing", "orders", 0, 50)
				time.Sleep(700 * time.Millisecond)
				s.stop()

				s.target = s.west.ours
				s.east.commit(t, "billing", "orders", 0, 30) // back: only our own commit may be followed back
				s.begin(t)
				s.expect(t, "billing", checkpoint.InStep, 27)
			})
		})
	}
}

// mute does not answer commits.
type mute struct {
	checkpoint.SyncCluster
	carriedOut bool
}

func (m *mute) RequestBroker(ctx context.Context, broker int32, req kmsg.Request) (kmsg.Response, error) {
	if _, commit := req.(*kmsg.OffsetCommitRequest); commit {
		if m.carriedOut {
			_, _ = m.SyncCluster.RequestBroker(ctx, broker, req)
		}
		return nil, errors.New("connection lost")
	}
	return m.SyncCluster.RequestBroker(ctx, broker, req)
}

func TestTroubleOnTheWay(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		var refused atomic.Int32
		codes := []int16{kerr.NotCoordinator.Code, kerr.CoordinatorLoadInProgress.Code, kerr.OffsetMetadataTooLarge.Code}
		for _, code := range codes {
			s.west.fake.ControlKey(int16(kmsg.OffsetCommit), func(req kmsg.Request) (kmsg.Response, error, bool) {
				refused.Add(1)
				return refusal(req, code), nil, true
			})
		}
		s.east.commit(t, "billing", "orders", 0, 50)
		time.Sleep(5 * time.Second)
		s.expect(t, "billing", checkpoint.InStep, 45)
		if n := refused.Load(); int(n) != len(codes) {
			t.Errorf("%d refusals, want %d", n, len(codes))
		}

		// Coordinators move, a broker goes.
		s.east.fake.RehashCoordinators()
		s.west.fake.RehashCoordinators()
		s.east.commit(t, "billing", "orders", 0, 60)
		time.Sleep(2 * time.Second)
		s.expect(t, "billing", checkpoint.InStep, 54)
		if err := s.west.fake.RemoveNode(2); err != nil {
			t.Fatal(err)
		}
		s.east.commit(t, "billing", "orders", 0, 70)
		time.Sleep(20 * time.Second)
		s.expect(t, "billing", checkpoint.InStep, 63)
	})
}

func TestOnlyGroupsOfMirroredTopicsAreTracked(t *testing.T) {
	tell(t, func(f *topology.Flow) { f.ExcludeTopics = []string{"other"} }, func(t *testing.T, s *story) {
		s.east.commit(t, "elsewhere", "other", 0, 5)
		s.east.commit(t, "console-consumer-1", "orders", 0, 5)
		s.east.commit(t, "both", "other", 0, 5)
		s.east.commit(t, "both", "orders", 0, 5)
		s.expect(t, "both", checkpoint.InStep, 5)
		var names []string
		for _, g := range s.syncer.Groups() {
			names = append(names, g.Group)
		}
		if !slices.Equal(names, []string{"both"}) {
			t.Errorf("tracked: %v", names)
		}
		if _, err := s.east.admin.DeleteGroup(t.Context(), "both"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if groups := s.syncer.Groups(); len(groups) > 0 {
			t.Errorf("deleted on the source, still shown: %+v", groups)
		}
		if got := s.west.committed(t, "both", "east.orders", 0); got != 5 {
			t.Errorf("deleted on the source, on the target at %d", got)
		}
	})
}

func TestCheckpointsAreMirrorMakers(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		for i := range int64(40) { // ten a second
			s.east.commit(t, "billing", "orders", 0, i)
			time.Sleep(100 * time.Millisecond)
		}
		s.expect(t, "billing", checkpoint.InStep, 36)
		all := s.checkpoints(t)
		if len(all) < 4 || len(all) > 6 {
			t.Errorf("%d checkpoints in 4 seconds of change, want about one a second", len(all))
		}
		for _, rec := range all {
			c, err := checkpoint.DecodeCheckpoint(rec)
			plain := checkpoint.EncodeCheckpoint(c)
			if err != nil || !cmp.Equal(rec.Key, plain.Key) || !cmp.Equal(rec.Value, plain.Value) || c.Topic != "east.orders" || c.Metadata != "from billing" {
				t.Errorf("checkpoint %+v, %v", c, err)
			}
		}
		before := len(all)
		time.Sleep(time.Minute)
		if n := len(s.checkpoints(t)); n != before {
			t.Errorf("%d checkpoints though nothing changed", n-before)
		}
	})
}

func TestCheckpointsWithoutGroupSync(t *testing.T) {
	tell(t, func(f *topology.Flow) { f.GroupSync.Enabled = false }, func(t *testing.T, s *story) {
		s.east.commit(t, "billing", "orders", 0, 50)
		s.expect(t, "billing", checkpoint.InStep, -1)
		if c := s.lastCheckpoint(t, "billing"); c.Downstream != 45 {
			t.Errorf("got %+v", c)
		}
	})
}

func TestGroupSyncWithoutCheckpoints(t *testing.T) {
	tell(t, func(f *topology.Flow) { f.Checkpoints = false }, func(t *testing.T, s *story) {
		s.east.commit(t, "billing", "orders", 0, 50)
		s.expect(t, "billing", checkpoint.InStep, 45)
		s.stop()
		s.begin(t)
		s.expect(t, "billing", checkpoint.InStep, 45)
		s.east.commit(t, "billing", "orders", 0, 20)
		s.expect(t, "billing", checkpoint.InStep, 18)
		if all, err := s.west.admin.ListTopics(t.Context()); err != nil || all.Has(s.flow.CheckpointsTopic()) {
			t.Errorf("the checkpoints topic was made, %v", err)
		}
	})
}

// Brokers that take one group per request and do not list states.
func TestOldBrokers(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		for i := range 5 {
			s.east.commit(t, fmt.Sprint("group-", i), "orders", 0, int64(10*i))
		}
		for i := range 5 {
			s.expect(t, fmt.Sprint("group-", i), checkpoint.InStep, int64(9*i))
		}
		leave := s.west.join(t, "group-3", "east.orders")
		time.Sleep(5 * time.Second)
		s.east.commit(t, "group-3", "orders", 0, 60)
		s.expect(t, "group-3", checkpoint.ActiveAtTarget, 27)
		leave()
		time.Sleep(7 * time.Second)
		s.expect(t, "group-3", checkpoint.InStep, 54)
	}, kfake.MaxVersions(kversion.V2_4_0()))
}

func TestManyGroupsInFewRequests(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		const groups = 500
		for i := range groups {
			s.east.commit(t, fmt.Sprint("group-", i), "orders", 0, int64(i%100))
		}
		time.Sleep(10 * time.Second)
		var requests, commits atomic.Int32
		s.east.fake.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
			s.east.fake.KeepControl()
			requests.Add(1)
			return nil, nil, false
		})
		s.west.fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
			s.west.fake.KeepControl()
			commits.Add(1)
			return nil, nil, false
		})
		time.Sleep(10 * time.Second)
		if n := requests.Load(); n > 250 {
			t.Errorf("%d requests to the source in 10 seconds for %d groups", n, groups)
		}
		if n := commits.Load(); n != 0 {
			t.Errorf("%d commits though nothing changed", n)
		}
		for _, g := range s.syncer.Groups() {
			p := g.Partitions[0]
			if g.State != "in-step" || p.TargetOffset != p.SourceOffset/10*9+p.SourceOffset%10 {
				t.Errorf("got %+v", g)
			}
		}
		if n := len(s.syncer.Groups()); n != groups {
			t.Errorf("%d groups", n)
		}
	})
}

func (s *story) checkpoints(t *testing.T) (all []wire.Record) {
	t.Helper()
	if _, err := s.west.ours.Read(t.Context(), s.flow.CheckpointsTopic(), 0, 0, func(rec wire.Record) error {
		all = append(all, rec)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func (s *story) lastCheckpoint(t *testing.T, group string) (last checkpoint.Checkpoint) {
	t.Helper()
	for _, rec := range s.checkpoints(t) {
		if c, err := checkpoint.DecodeCheckpoint(rec); err != nil {
			t.Error(err)
		} else if c.Group == group {
			last = c
		}
	}
	return last
}
