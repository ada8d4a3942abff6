package broker_test

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// script is everything that producers do, right and wrong.
func (s *transcript) script() {
	find := kmsg.NewPtrFindCoordinatorRequest()
	for find.CoordinatorType = range int8(2) {
		find.CoordinatorKeys = []string{"x", "y"}
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			resp := ask[*kmsg.FindCoordinatorResponse](s.client, 4, find)
			if len(resp.Coordinators) == 2 && resp.Coordinators[0].ErrorCode == 0 {
				break
			}
		}
	}
	for _, topic := range []string{"init", "old", "new", "deny", "a", "b", "offsets", "over", "hang", "gone"} {
		createTopic(s.client, topic, 1)
	}
	s.initScript()
	s.oldScript()
	s.newScript()
	s.denyScript()
	s.offsetsScript()
	s.edgeScript()
	s.adminScript()
}

// edgeScript is what no sensible client does.
func (s *transcript) edgeScript() {
	for _, version := range []int16{3, 4} {
		for _, kind := range []int8{1, 9} {
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.CoordinatorType, req.CoordinatorKeys = kind, []string{""}
			resp := ask[*kmsg.FindCoordinatorResponse](s.client, version, req)
			code := resp.ErrorCode
			if version >= 4 {
				code = resp.Coordinators[0].ErrorCode
			}
			s.say("find an empty key of type %d v%d: %s", kind, version, codeName(code))
		}
	}
	p := s.init("edge", "edge", 5, 60000, -1, -1)
	empty := &producer{c: s.client, id: p.id, epoch: p.epoch}
	s.add("empty id", 3, empty, "deny")
	s.batched("empty id", 4, empty, true, "deny")
	s.end("empty id", 3, empty, true)
	s.end("empty id", 5, empty, true)
	s.addOffsets("empty id", 3, empty, "g")
	s.write("empty id", 11, empty, "deny", p.records(0, true, "x"))
	s.write("empty id", 12, empty, "deny", p.records(0, true, "x"))
	s.commitOffset("empty id", 5, empty, "g3", "", -1, "offsets", 1)
	none := ask[*kmsg.AddPartitionsToTxnResponse](s.client, 3, &kmsg.AddPartitionsToTxnRequest{TransactionalID: p.txn, ProducerID: p.id, ProducerEpoch: p.epoch})
	s.say("add nothing: %d topics", len(none.Topics))
	s.state("nothing added", "edge")
	s.add("old dialect", 3, p, "over")
	s.write("old dialect", 11, p, "over", p.records(0, true, "e0"))
	s.say("a time in an open transaction: %d, the latest %d", listOffset(s.client, "over", 0, 0, 1), listOffset(s.client, "over", 0, -1, 1))
	s.end("the new one's end", 5, p, true)
	s.ends("the new one's end", "over", 2)
	s.say("a time in a committed transaction: %d", listOffset(s.client, "over", 0, 0, 1))
	s.add("the old one again", 3, p, "over")
	s.write("the old one again, no beginning", 11, p, "over", p.records(1, true, "x"))
	s.write("the old one again", 11, p, "over", p.records(0, true, "e1"))
	s.write("the new dialect in it", 12, p, "over", p.records(1, true, "e2"))
	s.write("the new dialect in it, elsewhere", 12, p, "a", p.records(0, true, "e3"))
	s.end("the old one's end", 4, p, false)
	s.ends("the old one's end", "over", 5)
	s.add("after it", 3, p, "over")
	s.write("after it", 11, p, "over", p.records(2, true, "e4"))
	s.end("after it", 3, p, true)
	s.ends("after it", "over", 7)
	s.read("edge", "over", 1)
	s.producers("edge", "over")

	s.commitOffset("too much metadata", 5, p, "g3", "", -1, "offsets", -5)
	s.commitOffset("of a group", 5, p, "g3", "", -1, "offsets", 5)
	remove := kmsg.NewPtrDeleteGroupsRequest()
	remove.Groups = []string{"g3"}
	s.say("delete the group: %s", codeName(ask[*kmsg.DeleteGroupsResponse](s.client, 2, remove).Groups[0].ErrorCode))
	s.offset("deleted", "g3", "offsets", true)
	s.end("of a deleted group", 5, p, true)
	s.state("of a deleted group", "edge")
	s.awaitOffset("g3", "offsets")
	s.offset("deleted", "g3", "offsets", true)
}

func (s *transcript) initScript() {
	s.init("empty", "", 4, 1000, -1, -1)
	s.init("no timeout", "i", 4, 0, -1, -1)
	s.init("too long", "i", 4, 1<<30, -1, -1)
	s.init("half an expectation", "i", 4, 1000, 5, -1)
	s.init("the other half", "i", 4, 1000, -1, 5)
	p := s.init("new with an expectation", "e", 4, 60000, 77, 3)
	s.init("once more", "e", 4, 60000, p.id, p.epoch)
	p = s.init("new", "i", 0, 60000, -1, -1)
	s.init("bump", "i", 5, 60000, -1, -1)
	s.init("the epoch before, not asked for", "i", 4, 60000, p.id, 0)
	s.init("mine", "i", 4, 60000, p.id, 1)
	s.init("mine again", "i", 4, 60000, p.id, 1)
	s.init("mine twice again", "i", 4, 60000, p.id, 2)
	s.init("old", "i", 4, 60000, p.id, 1)
	s.init("old v3", "i", 3, 60000, p.id, 0)
	s.init("foreign", "i", 4, 60000, p.id+1000, 3)
	s.state("after", "i")
}

func (s *transcript) oldScript() {
	p := s.init("old", "old", 4, 60000, -1, -1)
	s.end("nothing to end", 3, p, true)
	s.end("nothing to end", 3, p, false)
	s.write("not added", 9, p, "old", p.records(0, true, "x"))
	s.write("not added", 11, p, "old", p.records(0, true, "x"))
	s.add("first", 3, p, "old")
	s.state("open", "old")
	s.write("added", 9, p, "old", p.records(0, true, "v0", "v1"))
	s.producers("open", "old")
	s.write("plain in a transaction", 9, p, "old", p.records(2, false, "x"))
	s.write("again", 9, p, "old", p.records(0, true, "v0", "v1"))
	s.write("a gap", 9, p, "old", p.records(5, true, "x"))
	s.ends("open", "old", 2)
	s.read("open", "old", 1)
	s.end("commit", 3, p, true)
	s.ends("committed", "old", 3)
	s.end("commit again", 3, p, true)
	s.end("abort after it", 3, p, false)
	s.end("commit again with v5", 5, &producer{c: s.client, txn: "old", id: p.id, epoch: p.epoch}, true)
	s.state("committed", "old")
	s.write("not added any more", 11, p, "old", p.records(2, true, "x"))
	s.add("second", 0, p, "old", "a")
	s.write("second", 11, p, "old", p.records(2, true, "v2"))
	s.end("abort", 0, p, false)
	s.ends("aborted", "old", 5)
	s.ends("aborted", "a", 1)
	s.end("abort again", 3, p, false)
	s.end("commit after it", 3, p, true)
	s.read("all", "old", 0)
	s.read("all", "old", 1)
	s.producers("all", "old")
	s.add("third", 3, p, "old")
	s.write("third", 11, p, "old", p.records(3, true, "v3"))
	q := s.init("while it is open", "old", 4, 60000, -1, -1)
	s.ends("fenced", "old", 7)
	s.state("fenced", "old")
	s.write("a zombie", 11, p, "old", p.records(4, true, "x"))
	s.end("a zombie", 3, p, true)
	s.end("a zombie", 1, p, true)
	s.add("a zombie", 3, p, "old")
	s.add("a zombie", 1, p, "old")
	s.addOffsets("a zombie", 3, p, "g")
	s.add("the successor", 3, q, "old")
	s.write("the successor", 11, q, "old", q.records(0, true, "v4"))
	s.end("the successor", 4, q, true)
	s.ends("the successor", "old", 9)
	s.read("all", "old", 1)
	s.add("with v5 at the end", 3, q, "old")
	s.end("with v5 at the end", 5, q, false)
	s.ends("with v5 at the end", "old", 10)
	s.write("plain after that", 11, q, "old", q.records(0, false, "v5"))
	s.write("plain after that", 11, q, "old", q.records(1, false, "v6"))
	s.producers("plain", "old")
	s.read("all", "old", 0)
}

func (s *transcript) newScript() {
	p := s.init("new", "new", 5, 60000, -1, -1)
	s.end("nothing to commit", 5, p, true)
	s.end("nothing to abort", 5, p, false)
	s.state("aborted", "new")
	s.end("nothing to abort", 5, p, false)
	s.end("nothing to commit", 5, p, true)
	s.write("first", 12, p, "new", p.records(0, true, "v0"))
	s.state("open", "new")
	s.write("second", 12, p, "new", p.records(1, true, "v1"))
	s.write("again", 12, p, "new", p.records(0, true, "v0"))
	s.write("another partition, no beginning", 12, p, "b", p.records(3, true, "x"))
	s.write("another partition", 12, p, "b", p.records(0, true, "v0"))
	before := *p
	s.end("commit", 5, p, true)
	s.ends("commit", "new", 3)
	s.state("commit", "new")
	again := before
	s.end("the same", 5, &again, true)
	again = before
	s.end("the same, otherwise", 5, &again, false)
	s.write("the epoch before", 12, &before, "new", before.records(2, true, "x"))
	s.write("no beginning", 12, p, "new", p.records(2, true, "x"))
	s.write("a beginning", 12, p, "new", p.records(0, true, "v2"))
	before = *p
	s.end("abort", 5, p, false)
	s.ends("abort", "new", 5)
	again = before
	s.end("the same", 5, &again, false)
	again = before
	s.end("the same, otherwise", 5, &again, true)
	older := before
	older.epoch--
	s.end("an older one", 5, &older, false)
	newer := *p
	newer.epoch++
	s.end("a newer one", 5, &newer, false)
	stranger := *p
	stranger.id += 1000
	s.end("another's", 5, &stranger, false)
	s.end("nothing to commit", 5, p, true)
	s.end("nothing to abort", 5, p, false)
	s.read("all", "new", 0)
	s.read("all", "new", 1)
	s.producers("all", "new")
	s.write("open", 12, p, "new", p.records(0, true, "v3"))
	q := s.init("while it is open", "new", 5, 60000, -1, -1)
	s.state("fenced", "new")
	s.write("a zombie", 12, p, "new", p.records(1, true, "x"))
	s.end("a zombie", 5, p, true)
	s.write("the successor", 12, q, "new", q.records(0, true, "v4"))
	r := s.init("mine, while it is open", "new", 5, 60000, q.id, q.epoch)
	s.state("mine", "new")
	s.write("after it", 12, r, "new", r.records(0, true, "v5"))
	s.end("an old client's end", 4, r, true)
	s.state("an old client's end", "new")
	s.read("all", "new", 1)
}

func (s *transcript) denyScript() {
	p := s.init("deny", "deny", 5, 60000, -1, -1)
	nobody := &producer{c: s.client, txn: "nobody", id: p.id, epoch: p.epoch}
	s.add("unknown id", 3, nobody, "deny")
	s.add("unknown topic", 3, p, "missing", "deny")
	stranger := *p
	stranger.id += 1000
	s.add("wrong producer", 3, &stranger, "deny")
	newer := *p
	newer.epoch++
	s.add("wrong epoch", 3, &newer, "deny")
	s.end("unknown id", 3, nobody, true)
	s.end("unknown id", 5, nobody, true)
	s.end("wrong producer", 3, &stranger, true)
	s.end("wrong epoch", 3, &newer, true)
	s.end("wrong epoch", 5, &newer, false)
	for _, verify := range []bool{true, false} {
		s.batched("unknown id", 4, nobody, verify, "deny")
		s.batched("unknown topic", 4, p, verify, "deny", "missing")
		s.batched("wrong producer", 4, &stranger, verify, "deny")
		s.batched("wrong epoch", 4, &newer, verify, "deny")
	}
	s.batched("not added", 4, p, true, "deny")
	s.batched("not added", 5, p, true, "deny")
	s.batched("added", 5, p, false, "deny")
	s.batched("verified", 4, p, true, "deny")
	s.batched("half", 5, p, true, "deny", "a")
	s.state("batched", "deny")
	for _, version := range []int16{9, 11, 12} {
		s.write("unknown id", version, nobody, "b", p.records(0, true, "x"))
		s.write("wrong producer", version, p, "b", stranger.records(0, true, "x"))
		s.write("wrong epoch", version, p, "b", newer.records(0, true, "x"))
	}
	s.end("abort", 5, p, false)
	s.ends("abort", "deny", 1)
	s.state("unknown", "nobody")
	s.state("empty", "")
	s.addOffsets("unknown id", 3, nobody, "g")
	s.commitOffset("unknown id", 3, nobody, "g", "", -1, "a", 1)
	s.commitOffset("unknown id", 5, nobody, "g", "", -1, "a", 1)
	s.commitOffset("wrong epoch", 3, &newer, "g", "", -1, "a", 1)
	s.commitOffset("wrong epoch", 5, &newer, "g", "", -1, "a", 1)
	s.commitOffset("wrong producer", 5, &stranger, "g", "", -1, "a", 1)
}

func (s *transcript) offsetsScript() {
	p := s.init("offsets", "offsets", 5, 60000, -1, -1)
	s.commitOffset("not added", 3, p, "g1", "", -1, "offsets", 1)
	s.commitOffset("not added", 4, p, "g1", "", -1, "offsets", 1)
	s.addOffsets("g1", 3, p, "g1")
	s.commitOffset("added", 3, p, "g1", "", -1, "offsets", 7)
	s.commitOffset("missing topic", 3, p, "g1", "", -1, "missing", 7)
	s.commitOffset("a member of nothing", 3, p, "g1", "m", 3, "offsets", 7)
	s.commitOffset("a generation of nothing", 3, p, "g9", "m", 3, "offsets", 7)
	s.offset("open", "g1", "offsets", false)
	s.offset("open", "g1", "offsets", true)
	s.end("commit", 3, p, true)
	s.awaitOffset("g1", "offsets")
	s.offset("committed", "g1", "offsets", true)
	s.commitOffset("implied", 5, p, "g1", "", -1, "offsets", 9)
	s.offset("open", "g1", "offsets", false)
	s.offset("open", "g1", "offsets", true)
	s.end("abort", 5, p, false)
	s.awaitOffset("g1", "offsets")
	s.offset("aborted", "g1", "offsets", true)
	before := *p
	s.commitOffset("implied", 5, p, "g1", "", -1, "offsets", 11)
	s.commitOffset("another group", 5, p, "g2", "", -1, "offsets", 12)
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Group, commit.Generation = "g2", -1
	ct := kmsg.NewOffsetCommitRequestTopic()
	ct.Topic = "offsets"
	cp := kmsg.NewOffsetCommitRequestTopicPartition()
	cp.Offset, cp.LeaderEpoch = 13, -1
	ct.Partitions = append(ct.Partitions, cp)
	commit.Topics = append(commit.Topics, ct)
	s.say("plain between: %s", codeName(ask[*kmsg.OffsetCommitResponse](s.client, 7, commit).Topics[0].Partitions[0].ErrorCode))
	s.offset("open", "g2", "offsets", true)
	s.end("commit", 5, p, true)
	s.awaitOffset("g1", "offsets")
	s.awaitOffset("g2", "offsets")
	s.offset("committed", "g1", "offsets", true)
	s.offset("the plain one is later", "g2", "offsets", true)
	s.commitOffset("a zombie", 5, &before, "g1", "", -1, "offsets", 99)
	s.commitOffset("a zombie", 3, &before, "g1", "", -1, "offsets", 99)
	s.state("after", "offsets")
}

func (s *transcript) adminScript() {
	p := s.init("short", "over", 5, 500, -1, -1)
	s.write("short", 12, p, "over", p.records(0, true, "x"))
	s.ends("over time", "over", 9)
	s.state("over time", "over")
	s.write("over time", 12, p, "over", p.records(1, true, "x"))
	s.write("over time", 11, p, "over", p.records(1, true, "x"))
	s.end("over time", 5, p, true)
	s.end("over time", 5, p, false)
	s.init("over time, mine", "over", 5, 500, p.id, p.epoch)
	s.init("over time, anew", "over", 5, 500, -1, -1)

	s.init("hanging", "hang", 5, 60000, -1, -1)
	h := s.init("hanging", "hang", 5, 60000, -1, -1)
	s.write("hanging", 12, h, "hang", h.records(0, true, "x"))
	s.producers("hanging", "hang")
	s.marker("too old", h, h.epoch-1, 0, "hang")
	s.marker("missing", h, h.epoch, 0, "missing")
	s.marker("an administrator's", h, h.epoch, 0, "hang")
	s.ends("an administrator's", "hang", 2)
	s.producers("an administrator's", "hang")
	s.end("after it", 5, h, true)
	s.ends("after it", "hang", 3)

	g := s.init("gone", "gone", 5, 60000, -1, -1)
	s.write("gone", 12, g, "gone", g.records(0, true, "x"))
	s.write("gone", 12, g, "a", g.records(0, true, "x"))
	remove := kmsg.NewPtrDeleteTopicsRequest()
	remove.TopicNames, remove.TimeoutMillis = []string{"gone"}, 10000
	s.say("delete: %s", codeName(ask[*kmsg.DeleteTopicsResponse](s.client, 5, remove).Topics[0].ErrorCode))
	s.end("gone", 5, g, true)
	s.state("gone", "gone")
	s.read("what is left", "a", 1)

	s.list("all", 0, func(*kmsg.ListTransactionsRequest) {})
	s.list("states", 0, func(r *kmsg.ListTransactionsRequest) { r.StateFilters = []string{"CompleteAbort", "Nonsense"} })
	s.list("long", 1, func(r *kmsg.ListTransactionsRequest) { r.DurationFilterMillis = 3_600_000 })
	s.list("any length", 1, func(r *kmsg.ListTransactionsRequest) { r.DurationFilterMillis = -1 })
	s.list("producer", 1, func(r *kmsg.ListTransactionsRequest) {
		r.ProducerIDFilters, r.DurationFilterMillis = []int64{h.id}, -1
	})
	s.list("pattern", 2, func(r *kmsg.ListTransactionsRequest) {
		pattern := "o.*r"
		r.TransactionalIDPattern, r.DurationFilterMillis = &pattern, -1
	})
	s.list("bad pattern", 2, func(r *kmsg.ListTransactionsRequest) {
		pattern := "("
		r.TransactionalIDPattern, r.DurationFilterMillis = &pattern, -1
	})
}
