package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
	"kmirror/internal/wire"
)

// memLog is __consumer_offsets in memory. It works, and can be made slow,
// stuck or broken.
type memLog struct {
	mu      sync.Mutex
	records map[int32][]coordinator.LogRecord
	appends int
	err     error
	stuck   chan struct{} // not nil: Append and Read wait for it
}

func (l *memLog) wait(ctx context.Context) {
	l.mu.Lock()
	stuck := l.stuck
	l.mu.Unlock()
	if stuck != nil {
		select {
		case <-stuck:
		case <-ctx.Done():
		}
	}
}

func (l *memLog) Append(ctx context.Context, partition int32, batches []coordinator.LogBatch) []error {
	l.wait(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.appends++
	err := l.err
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return slices.Repeat([]error{err}, len(batches))
	}
	if l.records == nil {
		l.records = make(map[int32][]coordinator.LogRecord)
	}
	for _, b := range batches {
		l.records[partition] = append(l.records[partition], logRecords(b, len(l.records[partition]))...)
	}
	return nil
}

// logRecords is a batch as it is read again.
func logRecords(b coordinator.LogBatch, at int) (out []coordinator.LogRecord) {
	if b.Marker != nil {
		return []coordinator.LogRecord{{Record: wire.Record{Offset: int64(at)}, Producer: b.Marker.ProducerID, Marker: b.Marker}}
	}
	for _, r := range b.Records {
		r.Offset = int64(at + len(out))
		lr := coordinator.LogRecord{Record: r, Producer: -1}
		if b.Producer != nil {
			lr.Producer = b.Producer.ID
		}
		out = append(out, lr)
	}
	return out
}

func (l *memLog) Read(ctx context.Context, partition int32, fn func(coordinator.LogRecord) error) error {
	l.wait(ctx)
	l.mu.Lock()
	records := slices.Clone(l.records[partition])
	l.mu.Unlock()
	for _, r := range records {
		if err := fn(r); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// start runs a coordinator on log for the length of the test.
func start(t *testing.T, log *memLog, change func(*coordinator.Settings)) (c *coordinator.Coordinator, stop func()) {
	t.Helper()
	settings := coordinator.DefaultSettings()
	if change != nil {
		change(&settings)
	}
	c = coordinator.New(coordinator.Config{Partitions: 5, Settings: settings, Log: log})
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func joinRequest(group, member string) *kmsg.JoinGroupRequest {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group, r.MemberID = 9, group, member
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis, r.ProtocolType = 10_000, 30_000, "consumer"
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name, p.Metadata = "range", subscription([]string{"t"})
	r.Protocols = append(r.Protocols, p)
	return r
}

// member joins a group as its first member and syncs.
func member(t *testing.T, c *coordinator.Coordinator, group string) (id string, generation int32) {
	t.Helper()
	client := coordinator.ClientInfo{ID: "c", Host: "/127.0.0.1"}
	first := c.JoinGroup(t.Context(), joinRequest(group, ""), client)
	if first.ErrorCode != kerr.MemberIDRequired.Code {
		t.Fatalf("first join: %s", code(first.ErrorCode))
	}
	joined := c.JoinGroup(t.Context(), joinRequest(group, first.MemberID), client)
	if joined.ErrorCode != 0 {
		t.Fatalf("join: %s", code(joined.ErrorCode))
	}
	s := kmsg.NewPtrSyncGroupRequest()
	s.Version, s.Group, s.MemberID, s.Generation = 4, group, joined.MemberID, joined.Generation
	a := kmsg.NewSyncGroupRequestGroupAssignment()
	a.MemberID, a.MemberAssignment = joined.MemberID, []byte("all")
	s.GroupAssignment = append(s.GroupAssignment, a)
	synced := c.SyncGroup(t.Context(), s)
	if synced.ErrorCode != 0 || string(synced.MemberAssignment) != "all" {
		t.Fatalf("sync: %s %q", code(synced.ErrorCode), synced.MemberAssignment)
	}
	return joined.MemberID, joined.Generation
}

func commitRequest(group, member string, generation int32, topic string, partition int32, offset int64) *kmsg.OffsetCommitRequest {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 9, group, member, generation
	t, p := kmsg.NewOffsetCommitRequestTopic(), kmsg.NewOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = partition, offset
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	return r
}

func commit(t *testing.T, c *coordinator.Coordinator, r *kmsg.OffsetCommitRequest) int16 {
	t.Helper()
	return c.OffsetCommit(t.Context(), r).Topics[0].Partitions[0].ErrorCode
}

// committed is everything a group has committed, by the groups form.
func committed(c *coordinator.Coordinator, group string) map[string]int64 {
	r := kmsg.NewPtrOffsetFetchRequest()
	r.Version = 8
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	r.Groups = append(r.Groups, g)
	out := make(map[string]int64)
	for _, topic := range c.OffsetFetch(r).Groups[0].Topics {
		for _, p := range topic.Partitions {
			out[fmt.Sprintf("%s/%d", topic.Topic, p.Partition)] = p.Offset
		}
	}
	return out
}

func heartbeat(c *coordinator.Coordinator, group, member string, generation int32) int16 {
	r := kmsg.NewPtrHeartbeatRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 4, group, member, generation
	return c.Heartbeat(r).ErrorCode
}

func describe(c *coordinator.Coordinator, group string, version int16) kmsg.DescribeGroupsResponseGroup {
	r := kmsg.NewPtrDescribeGroupsRequest()
	r.Version, r.Groups = version, []string{group}
	return c.DescribeGroups(r).Groups[0]
}

func TestGroupSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memLog{}
		c, stop := start(t, log, nil)
		id, generation := member(t, c, "g")
		if got := commit(t, c, commitRequest("g", id, generation, "t", 1, 42)); got != 0 {
			t.Fatalf("commit: %s", code(got))
		}
		if got := commit(t, c, commitRequest("simple", "", -1, "t", 0, 7)); got != 0 {
			t.Fatalf("simple commit: %s", code(got))
		}
		before := describe(c, "g", 5)
		stop()
		if got := heartbeat(c, "g", id, generation); got != kerr.NotCoordinator.Code {
			t.Errorf("heartbeat after the end: %s, want NOT_COORDINATOR", code(got))
		}

		c, stop = start(t, log, nil)
		defer stop()
		if diff := cmp.Diff(before, describe(c, "g", 5), cmpopts.IgnoreUnexported(kmsg.Tags{})); diff != "" {
			t.Errorf("group after restart (-before +after):\n%s", diff)
		}
		if got := heartbeat(c, "g", id, generation); got != 0 {
			t.Errorf("heartbeat after restart: %s", code(got))
		}
		if diff := cmp.Diff(map[string]int64{"t/1": 42}, committed(c, "g")); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[string]int64{"t/0": 7}, committed(c, "simple")); diff != "" {
			t.Error(diff)
		}
		// Nobody heartbeats any more: the loaded session ends.
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := describe(c, "g", 5).State; got != "Empty" {
			t.Errorf("state without heartbeats: %s, want Empty", got)
		}
	})
}

func TestDeletedGroupStaysDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memLog{}
		c, stop := start(t, log, nil)
		commit(t, c, commitRequest("g", "", -1, "t", 0, 7))
		del := kmsg.NewPtrDeleteGroupsRequest()
		del.Version, del.Groups = 2, []string{"g", "nowhere", "g"}
		resp := c.DeleteGroups(t.Context(), del)
		if len(resp.Groups) != 2 || resp.Groups[0].ErrorCode != 0 || resp.Groups[1].ErrorCode != kerr.GroupIDNotFound.Code {
			t.Fatalf("DeleteGroups: %+v", resp.Groups)
		}
		check := func() {
			t.Helper()
			if got := committed(c, "g"); len(got) != 0 {
				t.Errorf("offsets of a deleted group: %v", got)
			}
			if d := describe(c, "g", 6); d.State != "Dead" || d.ErrorCode != kerr.GroupIDNotFound.Code {
				t.Errorf("describe: %+v", d)
			}
			if l := c.ListGroups(kmsg.NewPtrListGroupsRequest()); len(l.Groups) != 0 {
				t.Errorf("list: %+v", l.Groups)
			}
		}
		check()
		stop()
		c, stop = start(t, log, nil)
		defer stop()
		check()
	})
}

// TestOffsetsOfATopicThatIsGone: the crash came after the deletion of the topic
// and before the tombstones.
func TestOffsetsOfATopicThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memLog{}
		c, stop := start(t, log, nil)
		commit(t, c, commitRequest("g", "", -1, "gone", 0, 7))
		commit(t, c, commitRequest("g", "", -1, "kept", 0, 8))
		stop()
		for range 2 { // and so it stays
			c, stop = start(t, log, nil)
			c.KeepTopics(func(topic string) bool { return topic == "kept" })
			synctest.Wait()
			if diff := cmp.Diff(map[string]int64{"kept/0": 8}, committed(c, "g")); diff != "" {
				t.Error(diff)
			}
			stop()
		}
	})
}

func TestParkedJoinEndsWithItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := start(t, &memLog{}, nil)
		defer stop()
		first, generation := member(t, c, "g")
		ctx, hangUp := context.WithCancel(t.Context())
		answered := make(chan int16)
		go func() {
			r := joinRequest("g", "")
			r.Version = 3
			answered <- c.JoinGroup(ctx, r, coordinator.ClientInfo{ID: "d"}).ErrorCode
		}()
		synctest.Wait()
		if got := heartbeat(c, "g", first, generation); got != kerr.RebalanceInProgress.Code {
			t.Fatalf("heartbeat while another joins: %s", code(got))
		}
		hangUp()
		if got := <-answered; got != kerr.CoordinatorNotAvailable.Code {
			t.Errorf("abandoned join: %s", code(got))
		}
		if d := describe(c, "g", 5); len(d.Members) != 1 {
			t.Errorf("members after the connection died: %d, want 1", len(d.Members))
		}
	})
}

func TestParkedRequestsEndWithTheRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := start(t, &memLog{}, func(s *coordinator.Settings) { s.InitialRebalanceDelay = time.Hour })
		answered := make(chan int16)
		go func() {
			r := joinRequest("g", "")
			r.Version = 3
			answered <- c.JoinGroup(t.Context(), r, coordinator.ClientInfo{}).ErrorCode
		}()
		synctest.Wait()
		stop()
		if got := <-answered; got != kerr.NotCoordinator.Code {
			t.Errorf("got %s, want NOT_COORDINATOR", code(got))
		}
	})
}

func TestCommitsThatWaitGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memLog{stuck: make(chan struct{})}
		close(log.stuck)
		c, stop := start(t, log, nil)
		defer stop()
		log.mu.Lock()
		log.stuck = make(chan struct{})
		release := log.stuck
		log.mu.Unlock()
		var wg sync.WaitGroup
		for i := range int64(100) {
			wg.Go(func() {
				if got := commit(t, c, commitRequest("g", "", -1, "t", int32(i), i)); got != 0 {
					t.Errorf("commit %d: %s", i, code(got))
				}
			})
		}
		synctest.Wait()
		if got := committed(c, "g"); len(got) != 0 {
			t.Errorf("%d offsets are visible before they are durable", len(got))
		}
		close(release)
		wg.Wait()
		if got := committed(c, "g"); len(got) != 100 {
			t.Errorf("%d offsets, want 100", len(got))
		}
		if log.appends > 3 {
			t.Errorf("100 concurrent commits took %d appends", log.appends)
		}
	})
}

func TestLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memLog{stuck: make(chan struct{})}
		c := coordinator.New(coordinator.Config{Partitions: 3, Settings: coordinator.DefaultSettings(), Log: log})
		loaded := make(chan error)
		go func() { loaded <- c.Load(t.Context()) }()
		synctest.Wait()

		loading := kerr.CoordinatorLoadInProgress.Code
		if got := commit(t, c, commitRequest("g", "", -1, "t", 0, 1)); got != loading {
			t.Errorf("commit: %s", code(got))
		}
		if got := c.JoinGroup(t.Context(), joinRequest("g", ""), coordinator.ClientInfo{}).ErrorCode; got != loading {
			t.Errorf("join: %s", code(got))
		}
		if got := heartbeat(c, "g", "m", 1); got != 0 {
			t.Errorf("heartbeat: %s, want ok: the group may well be there", code(got))
		}
		if got := c.ListGroups(kmsg.NewPtrListGroupsRequest()).ErrorCode; got != loading {
			t.Errorf("list: %s", code(got))
		}
		fetch := kmsg.NewPtrOffsetFetchRequest()
		fetch.Version, fetch.Group = 1, "g"
		topic := kmsg.NewOffsetFetchRequestTopic()
		topic.Topic, topic.Partitions = "t", []int32{0}
		fetch.Topics = append(fetch.Topics, topic)
		if got := c.OffsetFetch(fetch).Topics[0].Partitions[0].ErrorCode; got != loading {
			t.Errorf("fetch v1: %s", code(got))
		}
		fetch.Version = 7
		if got := c.OffsetFetch(fetch).ErrorCode; got != loading {
			t.Errorf("fetch v7: %s", code(got))
		}
		close(log.stuck)
		if err := <-loaded; err != nil {
			t.Fatal(err)
		}
		if got := heartbeat(c, "g", "m", 1); got != kerr.UnknownMemberID.Code {
			t.Errorf("heartbeat: %s", code(got))
		}
	})
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := start(t, &memLog{}, func(s *coordinator.Settings) { s.MaxGroups = 2 })
		defer stop()
		client := coordinator.ClientInfo{ID: "c"}
		commit(t, c, commitRequest("one", "", -1, "t", 0, 1))
		commit(t, c, commitRequest("two", "", -1, "t", 0, 1))
		if got := commit(t, c, commitRequest("three", "", -1, "t", 0, 1)); got != kerr.PolicyViolation.Code {
			t.Errorf("commit of a third group: %s", code(got))
		}
		if got := c.JoinGroup(t.Context(), joinRequest("three", ""), client).ErrorCode; got != kerr.GroupMaxSizeReached.Code {
			t.Errorf("join of a third group: %s", code(got))
		}
		del := kmsg.NewPtrDeleteGroupsRequest()
		del.Groups = []string{"one"}
		c.DeleteGroups(t.Context(), del)
		// A group of which nothing is left gives its place back.
		if got := c.JoinGroup(t.Context(), joinRequest("three", ""), client).ErrorCode; got != kerr.MemberIDRequired.Code {
			t.Errorf("join: %s", code(got))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := commit(t, c, commitRequest("four", "", -1, "t", 0, 1)); got != 0 {
			t.Errorf("commit after a promise expired: %s", code(got))
		}

		for name, session := range map[string]int32{"short": 5_999, "long": 1_800_001} {
			r := joinRequest("two", "")
			r.SessionTimeoutMillis = session
			if got := c.JoinGroup(t.Context(), r, client).ErrorCode; got != kerr.InvalidSessionTimeout.Code {
				t.Errorf("%s session: %s", name, code(got))
			}
		}
		if got := c.JoinGroup(t.Context(), joinRequest("", ""), client).ErrorCode; got != kerr.InvalidGroupID.Code {
			t.Errorf("empty group id: %s", code(got))
		}
		if got := commit(t, c, commitRequest("nowhere", "m", 3, "t", 0, 1)); got != kerr.GroupIDNotFound.Code {
			t.Errorf("commit to no group, v9: %s", code(got))
		}
		old := commitRequest("nowhere", "m", 3, "t", 0, 1)
		old.Version = 8
		if got := commit(t, c, old); got != kerr.IllegalGeneration.Code {
			t.Errorf("commit to no group, v8: %s", code(got))
		}
	})
}

func TestFailedAppends(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want *kerr.Error
	}{
		"disk full":  {errors.New("no space left on device"), kerr.CoordinatorNotAvailable},
		"not leader": {kerr.NotLeaderForPartition, kerr.NotCoordinator},
		"too large":  {fmt.Errorf("append: %w", kerr.MessageTooLarge), kerr.InvalidCommitOffsetSize},
		"timeout":    {kerr.RequestTimedOut, kerr.CoordinatorNotAvailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &memLog{err: test.err}
				c, stop := start(t, log, nil)
				defer stop()
				if got := commit(t, c, commitRequest("g", "", -1, "t", 0, 1)); got != test.want.Code {
					t.Errorf("got %s, want %s", code(got), test.want.Message)
				}
				if got := committed(c, "g"); len(got) != 0 {
					t.Errorf("an offset that is not in the log is shown: %v", got)
				}
			})
		})
	}
}

func TestListGroupsFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := start(t, &memLog{}, nil)
		defer stop()
		member(t, c, "busy")
		commit(t, c, commitRequest("idle", "", -1, "t", 0, 1))
		for _, test := range []struct {
			states, types, want []string
		}{
			{nil, nil, []string{"busy", "idle"}},
			{[]string{"stable"}, nil, []string{"busy"}},
			{[]string{"Empty", "Dead"}, []string{"Classic"}, []string{"idle"}},
			{nil, []string{"consumer"}, nil},
		} {
			r := kmsg.NewPtrListGroupsRequest()
			r.Version, r.StatesFilter, r.TypesFilter = 5, test.states, test.types
			var got []string
			for _, g := range c.ListGroups(r).Groups {
				got = append(got, g.Group)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("states %v types %v: %v, want %v", test.states, test.types, got, test.want)
			}
		}
	})
}

func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memLog{}
		c, stop := start(t, log, func(s *coordinator.Settings) { s.OffsetsRetention = time.Hour })
		defer stop()
		commit(t, c, commitRequest("g", "", -1, "t", 0, 1))
		time.Sleep(55 * time.Minute)
		synctest.Wait()
		if got := committed(c, "g"); len(got) != 1 {
			t.Fatalf("expired too early: %v", got)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if got := committed(c, "g"); len(got) != 0 {
			t.Errorf("not expired: %v", got)
		}
		if l := c.ListGroups(kmsg.NewPtrListGroupsRequest()); len(l.Groups) != 0 {
			t.Errorf("the group is still there: %+v", l.Groups)
		}
	})
}

func TestOffsetFetchForms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := start(t, &memLog{}, nil)
		defer stop()
		commit(t, c, commitRequest("g", "", -1, "t", 0, 5))
		old := kmsg.NewPtrOffsetFetchRequest()
		old.Version, old.Group = 7, "g"
		if got := old.Topics; got != nil {
			t.Fatal("null topics expected")
		}
		if got := c.OffsetFetch(old); len(got.Topics) != 1 || got.Topics[0].Partitions[0].Offset != 5 {
			t.Errorf("all topics, v7: %+v", got)
		}
		topic := kmsg.NewOffsetFetchRequestTopic()
		topic.Topic, topic.Partitions = "t", []int32{0, 9}
		old.Topics = append(old.Topics, topic)
		got := c.OffsetFetch(old).Topics[0].Partitions
		if got[0].Offset != 5 || got[1].Offset != -1 || got[1].LeaderEpoch != -1 || *got[1].Metadata != "" || got[1].ErrorCode != 0 {
			t.Errorf("v7: %+v", got)
		}
		batch := kmsg.NewPtrOffsetFetchRequest()
		batch.Version = 8
		for _, name := range []string{"g", "nowhere"} {
			g := kmsg.NewOffsetFetchRequestGroup()
			g.Group = name
			batch.Groups = append(batch.Groups, g)
		}
		groups := c.OffsetFetch(batch).Groups
		if len(groups) != 2 || len(groups[0].Topics) != 1 || len(groups[1].Topics) != 0 || groups[1].ErrorCode != 0 {
			t.Errorf("v8: %+v", groups)
		}
	})
}

func TestPartitionFor(t *testing.T) {
	for _, test := range []struct {
		group string
		n     int32
		want  int32
	}{
		{"", 50, 0},
		{"abc", 50, 96354 % 50},
		{"polygenelubricants", 50, 0}, // hashes to the one number without an absolute value
		{"😀", 50, 1772899 % 50},       // by UTF-16 units, as Java counts
		{"abc", 0, 0},
	} {
		if got := coordinator.PartitionFor(test.group, test.n); got != test.want {
			t.Errorf("PartitionFor(%q, %d) = %d, want %d", test.group, test.n, got, test.want)
		}
	}
}
