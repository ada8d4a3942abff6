package coordinator_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
	"kmirror/internal/wire"
)

var rewrite = flag.Bool("rewrite", false, "write what happens into the scripts in testdata")

// TestScripts plays the histories in testdata: a command, ----, what it did. A
// line of arguments is name=value; commands stand in (*story).run.
func TestScripts(t *testing.T) {
	playAll(t, "testdata/*.txt", func() player { return newStory() })
}

// player carries out one line of a script after the other.
type player interface {
	run(t *testing.T, line []string)
	took() []string // what it did since it was asked last
}

func playAll(t *testing.T, pattern string, begin func() player) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := string(raw)
			got := play(t, want, begin())
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		})
	}
}

// play runs a script and returns it with the outcomes that really came.
func play(t *testing.T, script string, s player) string {
	var out strings.Builder
	for block := range strings.SplitSeq(strings.TrimSpace(script), "\n\n") {
		lines := strings.Split(block, "\n")
		for len(lines) > 0 && strings.HasPrefix(lines[0], "#") {
			fmt.Fprintln(&out, lines[0])
			lines = lines[1:]
		}
		if len(lines) == 0 {
			fmt.Fprintln(&out)
			continue
		}
		for len(lines) > 0 && lines[0] != "----" {
			fmt.Fprintln(&out, lines[0])
			s.run(t, strings.Fields(lines[0]))
			lines = lines[1:]
		}
		fmt.Fprintln(&out, "----")
		for _, line := range s.took() {
			fmt.Fprintln(&out, line)
		}
		fmt.Fprintln(&out)
	}
	return strings.TrimSpace(out.String()) + "\n"
}

// story is one group with a clock that only the script moves. Appends succeed
// at once, unless the script holds or fails them.
type story struct {
	settings coordinator.Settings
	group    *coordinator.Group
	now      time.Time
	ids      int
	tickets  map[coordinator.Ticket]string
	last     coordinator.Ticket
	held     []coordinator.Append
	hold     bool
	failing  int16
	lines    []string
}

func newStory() *story {
	s := &story{
		settings: coordinator.DefaultSettings(),
		now:      time.UnixMilli(1_700_000_000_000),
		tickets:  make(map[coordinator.Ticket]string),
	}
	s.group = coordinator.NewGroup("g", &s.settings, s.now)
	return s
}

func (s *story) say(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *story) took() []string {
	l := s.lines
	s.lines = nil
	return l
}

// args are the name=value pairs of a line.
type args map[string]string

func (a args) str(name, or string) string {
	if v, ok := a[name]; ok {
		return v
	}
	return or
}

func (a args) num(name string, or int) int {
	n, err := strconv.Atoi(a.str(name, strconv.Itoa(or)))
	if err != nil {
		panic(err)
	}
	return n
}

func (a args) opt(name string) *string {
	if v, ok := a[name]; ok {
		return &v
	}
	return nil
}

func (s *story) ticket(who string) coordinator.Ticket {
	s.last++
	s.tickets[s.last] = who
	return s.last
}

func (s *story) run(t *testing.T, words []string) {
	a := make(args)
	for _, w := range words[1:] {
		k, v, _ := strings.Cut(w, "=")
		a[k] = v
	}
	switch words[0] {
	case "join":
		s.join(a)
	case "sync":
		s.sync(a)
	case "heartbeat":
		r := kmsg.NewPtrHeartbeatRequest()
		r.MemberID, r.Generation, r.InstanceID = a.str("member", ""), int32(a.num("gen", 1)), a.opt("instance")
		s.say("heartbeat %s: %s", r.MemberID, code(s.group.Heartbeat(r, s.now)))
	case "leave":
		s.leave(a)
	case "commit":
		s.commit(a)
	case "fetch":
		got, ok := s.group.Committed(a.str("topic", "t"), int32(a.num("partition", 0)))
		s.say("%d epoch=%d %q %t", got.Offset, got.LeaderEpoch, got.Metadata, ok)
	case "delete-offsets":
		r := kmsg.NewPtrOffsetDeleteRequest()
		r.Group = "g"
		rt := kmsg.NewOffsetDeleteRequestTopic()
		rt.Topic = a.str("topic", "t")
		rp := kmsg.NewOffsetDeleteRequestTopicPartition()
		rp.Partition = int32(a.num("partition", 0))
		rt.Partitions = append(rt.Partitions, rp)
		r.Topics = append(r.Topics, rt)
		s.do(s.group.DeleteOffsets(s.ticket("delete-offsets"), r, s.now))
	case "delete":
		s.do(s.group.Delete(s.ticket("delete"), 2, s.now))
	case "expire":
		s.do(s.group.Expire(s.now))
	case "drop-topic":
		s.do(s.group.DropTopic(a.str("topic", "t"), s.now))
	case "abandon":
		for _, id := range s.open() {
			if strings.HasSuffix(s.tickets[id], " "+a["who"]) {
				s.do(s.group.Abandon(id, s.now))
			}
		}
	case "wait":
		s.wait(t, a.str("for", "0s"))
	case "hold-appends":
		s.hold = true
	case "release-appends":
		s.hold = false
		held := s.held
		s.held = nil
		for _, h := range held {
			s.do(s.group.Appended(h.ID, int16(a.num("code", 0)), s.now))
		}
	case "fail-appends":
		s.failing = int16(a.num("code", 0))
	case "set":
		s.settings.InitialRebalanceDelay = time.Duration(a.num("initial_delay_ms", int(s.settings.InitialRebalanceDelay.Milliseconds()))) * time.Millisecond
		s.settings.OffsetsRetention = time.Duration(a.num("retention_min", int(s.settings.OffsetsRetention.Minutes()))) * time.Minute
		s.settings.MaxGroupSize = a.num("max_size", s.settings.MaxGroupSize)
		s.settings.OffsetMetadataMax = a.num("metadata_max", s.settings.OffsetMetadataMax)
	case "new-group":
		s.group = coordinator.NewGroup("g", &s.settings, s.now)
		s.ids, s.hold, s.held, s.failing = 0, false, nil, 0
	case "describe":
		s.describe()
	default:
		t.Fatalf("unknown command %q", words[0])
	}
	if words[0] != "describe" && words[0] != "fetch" && words[0] != "set" {
		flags := ""
		if s.group.Gone() {
			flags += " gone"
		}
		if s.group.Vacant() {
			flags += " vacant"
		}
		s.say("%s gen=%d%s", s.group.State(), s.group.Generation(), flags)
	}
}

// open are the tickets not answered yet, in order.
func (s *story) open() (ids []coordinator.Ticket) {
	for id := range s.tickets {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// wait moves the clock, deadline by deadline.
func (s *story) wait(t *testing.T, d string) {
	span, err := time.ParseDuration(d)
	if err != nil {
		t.Fatal(err)
	}
	end := s.now.Add(span)
	for {
		at, ok := s.group.Next()
		if !ok || at.After(end) {
			break
		}
		if at.After(s.now) {
			s.now = at
		}
		before := len(s.lines)
		s.do(s.group.Tick(s.now))
		if len(s.lines) > before {
			s.lines = slices.Insert(s.lines, before, fmt.Sprintf("after %s:", span-end.Sub(s.now)))
		}
	}
	s.now = end
}

func (s *story) join(a args) {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version = int16(a.num("v", 9))
	r.Group, r.MemberID, r.InstanceID = "g", a.str("member", ""), a.opt("instance")
	r.SessionTimeoutMillis = int32(a.num("session", 10000))
	r.RebalanceTimeoutMillis = int32(a.num("rebalance", 60000))
	r.ProtocolType = a.str("type", "consumer")
	for p := range strings.SplitSeq(a.str("protocols", "range:t"), ",") {
		if p == "" {
			continue
		}
		name, meta, _ := strings.Cut(p, ":")
		jp := kmsg.NewJoinGroupRequestProtocol()
		jp.Name, jp.Metadata = name, subscription(strings.Split(meta, "+"))
		r.Protocols = append(r.Protocols, jp)
	}
	s.ids++
	client := a.str("as", "c")
	id := fmt.Sprintf("%s-%d", a.str("instance", client), s.ids)
	who := a.str("member", client)
	s.do(s.group.Join(s.ticket("join "+who), r, coordinator.ClientInfo{ID: client, Host: "/127.0.0.1"}, id, s.now))
}

func (s *story) sync(a args) {
	r := kmsg.NewPtrSyncGroupRequest()
	r.Version = int16(a.num("v", 5))
	r.Group, r.MemberID, r.InstanceID = "g", a.str("member", ""), a.opt("instance")
	r.Generation, r.ProtocolType, r.Protocol = int32(a.num("gen", 1)), a.opt("type"), a.opt("protocol")
	for pair := range strings.SplitSeq(a.str("assign", ""), ",") {
		if id, what, ok := strings.Cut(pair, ":"); ok {
			ga := kmsg.NewSyncGroupRequestGroupAssignment()
			ga.MemberID, ga.MemberAssignment = id, []byte(what)
			r.GroupAssignment = append(r.GroupAssignment, ga)
		}
	}
	s.do(s.group.Sync(s.ticket("sync "+r.MemberID), r))
}

func (s *story) leave(a args) {
	r := kmsg.NewPtrLeaveGroupRequest()
	r.Version = int16(a.num("v", 5))
	if r.Version < 3 {
		r.MemberID = a.str("member", "")
	}
	for m := range strings.SplitSeq(a.str("members", a.str("member", "")), ",") {
		rm := kmsg.NewLeaveGroupRequestMember()
		rm.MemberID = m
		if id, instance, ok := strings.Cut(m, "@"); ok {
			rm.MemberID, rm.InstanceID = id, &instance
		}
		r.Members = append(r.Members, rm)
	}
	s.do(s.group.Leave(s.ticket("leave"), r, s.now))
}

func (s *story) commit(a args) {
	r := kmsg.NewPtrOffsetCommitRequest()
	r.Version = int16(a.num("v", 9))
	r.Group, r.MemberID, r.InstanceID = "g", a.str("member", ""), a.opt("instance")
	r.Generation = int32(a.num("gen", -1))
	r.RetentionTimeMillis = int64(a.num("retention", -1))
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = a.str("topic", "t")
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = int32(a.num("partition", 0)), int64(a.num("offset", 0)), int32(a.num("epoch", -1)), a.opt("metadata")
	rt.Partitions = append(rt.Partitions, rp)
	r.Topics = append(r.Topics, rt)
	s.do(s.group.Commit(s.ticket("commit"), r, s.now))
}

func (s *story) describe() {
	d := s.group.Describe()
	s.say("%s type=%q protocol=%q", d.State, d.ProtocolType, d.Protocol)
	for _, m := range d.Members {
		s.say("  %s instance=%s client=%s%s metadata=%d assignment=%q", m.MemberID, text(m.InstanceID), m.ClientID, m.ClientHost, len(m.ProtocolMetadata), m.MemberAssignment)
	}
}

// do carries out effects and writes down what they were.
func (s *story) do(effects []coordinator.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case coordinator.Answer:
			s.say("%s", s.answer(e))
			delete(s.tickets, e.Ticket)
		case coordinator.Append:
			for _, r := range e.Records {
				s.say("append %s", recordText(r))
			}
			if s.hold {
				s.held = append(s.held, e)
			} else {
				s.do(s.group.Appended(e.ID, s.failing, s.now))
			}
		}
	}
}

func (s *story) answer(e coordinator.Answer) string {
	who := s.tickets[e.Ticket]
	switch r := e.Response.(type) {
	case *kmsg.JoinGroupResponse:
		out := fmt.Sprintf("%s: %s member=%s", who, code(r.ErrorCode), r.MemberID)
		if r.ErrorCode != 0 {
			return out
		}
		out += fmt.Sprintf(" gen=%d protocol=%s leader=%s", r.Generation, text(r.Protocol), r.LeaderID)
		if r.SkipAssignment {
			out += " skip"
		}
		for _, m := range r.Members {
			out += " " + m.MemberID + "(" + string(m.ProtocolMetadata) + ")"
		}
		return strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, out)
	case *kmsg.SyncGroupResponse:
		return fmt.Sprintf("%s: %s %q protocol=%s", who, code(r.ErrorCode), r.MemberAssignment, text(r.Protocol))
	case *kmsg.LeaveGroupResponse:
		out := who + ": " + code(r.ErrorCode)
		for _, m := range r.Members {
			out += fmt.Sprintf(" %s@%s=%s", m.MemberID, text(m.InstanceID), code(m.ErrorCode))
		}
		return out
	case *kmsg.OffsetCommitResponse:
		return who + ": " + code(r.Topics[0].Partitions[0].ErrorCode)
	case *kmsg.OffsetDeleteResponse:
		if r.ErrorCode != 0 {
			return who + ": " + code(r.ErrorCode)
		}
		return who + ": " + code(r.Topics[0].Partitions[0].ErrorCode)
	case *kmsg.DeleteGroupsResponse:
		return who + ": " + code(r.Groups[0].ErrorCode)
	}
	return fmt.Sprintf("%s: %T", who, e.Response)
}

func code(c int16) string {
	if c == 0 {
		return "ok"
	}
	if known, ok := errors.AsType[*kerr.Error](kerr.ErrorForCode(c)); ok {
		return known.Message
	}
	return strconv.Itoa(int(c))
}

func text(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

// recordText is a record of __consumer_offsets in one line.
func recordText(r wire.Record) string {
	if r.Key[1] == 2 {
		k, v := kmsg.NewGroupMetadataKey(), kmsg.NewGroupMetadataValue()
		if err := k.ReadFrom(r.Key); err != nil {
			return err.Error()
		}
		if r.Value == nil {
			return "group=" + k.Group + " tombstone"
		}
		if err := v.ReadFrom(r.Value); err != nil {
			return err.Error()
		}
		var members []string
		for _, m := range v.Members {
			members = append(members, fmt.Sprintf("%s:%s", m.MemberID, m.Assignment))
		}
		return fmt.Sprintf("group=%s v%d gen=%d type=%s protocol=%s leader=%s members=%s", k.Group, v.Version, v.Generation, v.ProtocolType, text(v.Protocol), text(v.Leader), members)
	}
	k, v := kmsg.NewOffsetCommitKey(), kmsg.NewOffsetCommitValue()
	if err := k.ReadFrom(r.Key); err != nil {
		return err.Error()
	}
	at := fmt.Sprintf("offset %s %s/%d", k.Group, k.Topic, k.Partition)
	if r.Value == nil {
		return at + " tombstone"
	}
	if err := v.ReadFrom(r.Value); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s v%d = %d epoch=%d %q", at, v.Version, v.Offset, v.LeaderEpoch, v.Metadata)
}

// subscription is a consumer's metadata for some topics.
func subscription(topics []string) []byte {
	m := kmsg.NewConsumerMemberMetadata()
	sort.Strings(topics)
	m.Version, m.Topics = 1, topics
	return m.AppendTo(nil)
}
