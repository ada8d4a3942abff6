package coordinator_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"kmirror/broker/coordinator"
)

// history drives one group at random: clients that come, go, fall silent and
// lie, appends that are late or fail, connections that die.
type history struct {
	t        *rapid.T
	settings coordinator.Settings
	group    *coordinator.Group
	now      time.Time
	ids      int
	last     coordinator.Ticket
	open     map[coordinator.Ticket]bool
	waiting  []toAppend
	log      []coordinator.LogRecord
	members  []string           // ids that clients believe in
	instance map[string]*string // of static members, by id
	deserted map[coordinator.Ticket]bool
	failed   bool // an append has failed
}

// toAppend is an append, or a marker in the group's partition.
type toAppend struct {
	coordinator.Append

	marker *coordinator.Marker
}

func (h *history) ticket() coordinator.Ticket {
	h.last++
	h.open[h.last] = true
	return h.last
}

func (h *history) do(effects []coordinator.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case coordinator.Append:
			h.waiting = append(h.waiting, toAppend{Append: e})
		case coordinator.Answer:
			if h.deserted[e.Ticket] { // its connection died; nobody listens
				delete(h.deserted, e.Ticket)
				continue
			}
			if !h.open[e.Ticket] {
				h.t.Fatalf("ticket %d is answered twice, or was never asked", e.Ticket)
			}
			delete(h.open, e.Ticket)
			if r, ok := e.Response.(*kmsg.JoinGroupResponse); ok && r.MemberID != "" {
				h.members = append(h.members, r.MemberID)
			}
		}
	}
}

// written decides the fate of the oldest append.
func (h *history) written(ok bool) {
	if len(h.waiting) == 0 {
		return
	}
	a := h.waiting[0]
	h.waiting = h.waiting[1:]
	code := kerr.CoordinatorNotAvailable.Code
	h.failed = h.failed || !ok
	if ok {
		code = 0
		h.log = append(h.log, logRecords(coordinator.LogBatch{Records: a.Records, Producer: a.Producer, Marker: a.marker}, len(h.log))...)
	}
	if a.marker != nil {
		if ok {
			h.group.Decide(a.marker.ProducerID, a.marker.Commit)
		}
		return
	}
	h.do(h.group.Appended(a.ID, code, h.now))
}

func (h *history) wait(d time.Duration) {
	end := h.now.Add(d)
	for {
		at, ok := h.group.Next()
		if !ok || at.After(end) {
			break
		}
		if at.After(h.now) {
			h.now = at
		}
		h.do(h.group.Tick(h.now))
	}
	h.now = end
}

func (h *history) step() {
	t := h.t
	who := rapid.SampledFrom(append([]string{"", "stranger"}, h.members...)).Draw(t, "member")
	var instance *string
	if in := rapid.SampledFrom([]string{"", "", "i1", "i2"}).Draw(t, "instance"); in != "" {
		instance = &in
	}
	if own, ok := h.instance[who]; ok && rapid.IntRange(0, 9).Draw(t, "honest") > 0 {
		instance = own
	}
	generation := h.group.Generation() - int32(rapid.SampledFrom([]int{0, 0, 0, 0, 1}).Draw(t, "behind"))
	switch rapid.IntRange(0, 13).Draw(t, "command") {
	case 0, 1, 2, 3:
		r := joinRequest("g", who)
		r.Version, r.InstanceID = int16(rapid.SampledFrom([]int{0, 3, 5, 9}).Draw(t, "version")), instance
		r.Protocols[0].Name = rapid.SampledFrom([]string{"range", "range", "sticky"}).Draw(t, "protocol")
		h.ids++
		if who == "" && instance != nil {
			h.instance[fmt.Sprint("m", h.ids)] = instance
		}
		h.do(h.group.Join(h.ticket(), r, coordinator.ClientInfo{ID: "c"}, fmt.Sprint("m", h.ids), h.now))
	case 4, 5, 6:
		r := kmsg.NewPtrSyncGroupRequest()
		r.Version, r.Group, r.MemberID, r.InstanceID, r.Generation = 4, "g", who, instance, generation
		for _, m := range h.group.Describe().Members {
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID, a.MemberAssignment = m.MemberID, []byte("for "+m.MemberID)
			r.GroupAssignment = append(r.GroupAssignment, a)
		}
		h.do(h.group.Sync(h.ticket(), r))
	case 7:
		r := kmsg.NewPtrHeartbeatRequest()
		r.MemberID, r.InstanceID, r.Generation = who, instance, generation
		h.group.Heartbeat(r, h.now)
	case 8:
		r := kmsg.NewPtrLeaveGroupRequest()
		r.Version = 5
		m := kmsg.NewLeaveGroupRequestMember()
		m.MemberID, m.InstanceID = who, instance
		r.Members = append(r.Members, m)
		h.do(h.group.Leave(h.ticket(), r, h.now))
	case 9, 10:
		r := commitRequest("g", who, generation, rapid.SampledFrom([]string{"t", "u"}).Draw(t, "topic"), int32(rapid.IntRange(0, 2).Draw(t, "partition")), int64(h.ids))
		if who == "" {
			r.Generation = -1
		}
		h.do(h.group.Commit(h.ticket(), r, h.now))
	case 11:
		switch rapid.IntRange(0, 3).Draw(t, "removal") {
		case 0:
			h.do(h.group.Delete(h.ticket(), 2, h.now))
		case 1:
			h.do(h.group.DropTopic("u", h.now))
		case 2:
			h.do(h.group.Expire(h.now))
		case 3:
			for id := range h.last {
				if h.open[id] {
					h.do(h.group.Abandon(id, h.now))
					delete(h.open, id)
					h.deserted[id] = true
					break
				}
			}
		}
	case 12:
		h.written(rapid.IntRange(0, 5).Draw(t, "failed") > 0)
	case 13:
		h.wait(time.Duration(rapid.SampledFrom([]int{1, 4, 11, 31}).Draw(t, "seconds")) * time.Second)
	}
	switch rapid.IntRange(0, 3).Draw(t, "transaction") {
	case 0:
		r := kmsg.NewPtrTxnOffsetCommitRequest()
		r.Version, r.Group, r.MemberID, r.InstanceID, r.Generation = 3, "g", who, instance, generation
		if who == "" {
			r.Generation = -1
		}
		rt := kmsg.NewTxnOffsetCommitRequestTopic()
		rt.Topic = rapid.SampledFrom([]string{"t", "u"}).Draw(t, "topic")
		for p := range int32(rapid.IntRange(1, 3).Draw(t, "partitions")) {
			rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			h.ids++
			rp.Partition, rp.Offset = p, int64(h.ids)
			rt.Partitions = append(rt.Partitions, rp)
		}
		r.Topics = append(r.Topics, rt)
		h.do(h.group.CommitTransactional(h.ticket(), r, coordinator.TxnProducer{ID: int64(rapid.IntRange(1, 3).Draw(t, "producer"))}, h.now))
	case 1:
		h.mark(int64(rapid.IntRange(1, 3).Draw(t, "producer")), rapid.Bool().Draw(t, "commit"))
	}
	if !rapid.Bool().Draw(t, "appends late") {
		for len(h.waiting) > 0 {
			h.written(true)
		}
	}
}

// mark ends a producer's transaction.
func (h *history) mark(producer int64, commit bool) {
	h.waiting = append(h.waiting, toAppend{marker: &coordinator.Marker{ProducerID: producer, Commit: commit}})
}

// offsetsOf is every durable commit of a group.
func offsetsOf(g *coordinator.Group) map[string]int64 {
	out := make(map[string]int64)
	g.CommittedPartitions(func(topic string, partitions []int32) {
		for _, p := range partitions {
			o, _ := g.Committed(topic, p)
			out[fmt.Sprintf("%s/%d", topic, p)] = o.Offset
		}
	})
	return out
}

// TestRandomHistories: no request is answered twice, none for ever waits, and
// a group at rest is what its log says.
func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{
			t: t, settings: coordinator.DefaultSettings(), now: time.UnixMilli(1_700_000_000_000), open: map[coordinator.Ticket]bool{},
			instance: map[string]*string{}, deserted: map[coordinator.Ticket]bool{},
		}
		h.settings.MaxGroupSize = 4
		h.settings.InitialRebalanceDelay = time.Duration(rapid.SampledFrom([]int{0, 3}).Draw(t, "initial delay")) * time.Second
		h.group = coordinator.NewGroup("g", &h.settings, h.now)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			h.step()
			if h.group.Gone() {
				h.group = coordinator.NewGroup("g", &h.settings, h.now)
			}
		}
		for len(h.waiting) > 0 {
			h.written(true)
		}
		h.compareWithLog()
		for producer := range int64(4) { // what is undecided is the same here and there
			h.mark(producer, true)
			h.written(true)
		}
		h.compareWithLog()
		for range 3 { // nobody does anything any more: sessions end, and with them every wait
			h.wait(10 * time.Minute)
			for len(h.waiting) > 0 {
				h.written(true)
			}
		}
		if len(h.open) > 0 {
			t.Fatalf("tickets %v wait for ever; the group is %s", h.open, h.group.State())
		}
		if s := h.group.State(); s != coordinator.Empty && s != coordinator.Dead {
			t.Fatalf("without clients the group is %s", s)
		}
		h.compareWithLog()
	})
}

// compareWithLog loads the log into a coordinator. A group with members is
// compared when it is stable, and when no record is missing because it could
// not be written.
func (h *history) compareWithLog() {
	c := coordinator.New(coordinator.Config{Partitions: 1, Settings: h.settings, Log: &memLog{records: map[int32][]coordinator.LogRecord{0: h.log}}})
	if err := c.Load(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	if diff := cmp.Diff(offsetsOf(h.group), committed(c, "g"), cmpopts.EquateEmpty()); diff != "" {
		h.t.Fatalf("offsets (-in memory +in the log):\n%s", diff)
	}
	if h.failed || h.group.State() != coordinator.Stable {
		return
	}
	if diff := cmp.Diff(h.group.Describe(), describe(c, "g", 5), cmpopts.IgnoreUnexported(kmsg.Tags{})); diff != "" {
		h.t.Fatalf("group (-in memory +in the log):\n%s", diff)
	}
}
