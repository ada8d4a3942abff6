package integration_test

import (
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// retention deletes records while the mirror is away.
func (x *troubles) retention() {
	stop, goOn := x.begin("expired", 100), x.begin("expired-continue", 100)
	x.mirror.stop(30 * time.Second)
	for _, h := range []*history{stop, goOn} {
		x.write("east", h, 100)
		x.expire("east", h.topic, 137)
		x.write("east", h, 100)
	}
	x.owner.start()
	x.owner.ready(readyWithin)
	for _, h := range []*history{stop, goOn} {
		if in := x.mirror.incident("retention-loss", h.topic); in.SourceOffset != 100 || in.Count != 37 {
			x.t.Errorf("%+v", in)
		}
	}
	x.mirror.becomes("stopped", stop.topic, 0)
	eventually(x.t, 40*time.Second, "what is left", func() error {
		v := goOn.check(x.read("west", "east."+goOn.topic))
		if len(v.lost) != 37 || len(v.doubled)+len(v.changed)+len(v.reordered)+len(v.alien) > 0 {
			return fmt.Errorf("%s", v)
		}
		return nil
	})
	if n := count(x.read("west", "east."+stop.topic)); n != 100 {
		x.t.Errorf("stopped, and %d records in the target, were 100", n)
	}
	x.mirror.mustKmirror("resume", "east->west", stop.topic, "--accept", "retention-loss")
	eventually(x.t, 40*time.Second, "what is left, once it is accepted", func() error {
		if n := count(x.read("west", "east."+stop.topic)); n != 263 {
			return fmt.Errorf("%d records, want 263", n)
		}
		return nil
	})
}

// fullDisk fills south's disk by mirroring into it.
func (x *troubles) fullDisk() {
	h := newHistory("u-"+x.tag+"-disk", 1, 20_000)
	x.createReplicated("west", h.topic, 1, 3)
	x.write("west", h, 3500, kgo.ProducerBatchCompression(kgo.NoCompression()))
	x.mirror.incident("out-of-disk", h.topic)
	dir := x.dir + "/south-broker-data"
	if out, err := exec.Command("mount", "-o", "remount,size=256m", dir).CombinedOutput(); err != nil {
		x.t.Fatalf("%v: %s", err, out)
	}
	x.exact(h, "west", "south", "west."+h.topic)
}

// unclean lets a replica become leader that lacks the newest records: of a
// topic that is mirrored away, twice, and of one that is mirrored into.
func (x *troubles) unclean() {
	t := x.t
	admin := x.admin("west")
	behind, leader := x.c.nodes[0], x.c.nodes[1]
	place := func(topic string) {
		t.Helper()
		req := kadm.AlterPartitionAssignmentsReq{}
		req.Assign(topic, 0, []int32{leader.id, behind.id})
		if _, err := admin.AlterPartitionAssignments(x.ctx(20*time.Second), req); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, topic+" on two nodes", func() error {
			topics, err := admin.ListTopics(x.ctx(5*time.Second), topic)
			if err != nil {
				return err
			}
			p := topics[topic].Partitions[0]
			if p.Leader != leader.id {
				_, _ = admin.ElectLeaders(x.ctx(5*time.Second), kadm.ElectPreferredReplica, kadm.TopicsSet{topic: {0: {}}})
			}
			if len(p.Replicas) != 2 || len(p.ISR) != 2 || p.Leader != leader.id {
				return fmt.Errorf("leader %d, in sync %v of %v", p.Leader, p.ISR, p.Replicas)
			}
			return nil
		})
	}
	into := newHistory(x.topic("truncated"), 1, 300)
	from, fromContinue := newHistory("u-"+x.tag+"-truncated", 1, 300), newHistory("u-"+x.tag+"-truncated-continue", 1, 300)
	x.create("east", into.topic, 1)
	x.write("east", into, 200)
	x.mirrored("east", into.topic, "west", "east."+into.topic)
	for _, h := range []*history{from, fromContinue} {
		x.createReplicated("west", h.topic, 1, 3)
	}
	for _, topic := range []string{from.topic, fromContinue.topic, "east." + into.topic} {
		x.alter("west", topic, "min.insync.replicas=1")
		place(topic)
	}
	for _, h := range []*history{from, fromContinue} {
		x.write("west", h, 200)
		x.mirrored("west", h.topic, "south", "west."+h.topic)
	}
	// Only the leader has what is written now, and the mirror has seen it.
	behind.signal(syscall.SIGTERM)
	<-behind.ended
	x.write("east", into, 100)
	x.mirroredAtLeast("west", "east."+into.topic, into)
	for _, h := range []*history{from, fromContinue} {
		x.write("west", h, 100)
		x.mirrored("west", h.topic, "south", "west."+h.topic)
	}
	// The mirror must not see the new leader before it has written: then only the
	// epochs of leaders tell that the log is another one.
	x.owner.pause()
	leader.kill()
	x.c.start(behind)
	x.c.up(behind)
	for _, topic := range []string{from.topic, fromContinue.topic, "east." + into.topic} {
		eventually(t, 40*time.Second, "an unclean leader of "+topic, func() error {
			elected, err := admin.ElectLeaders(x.ctx(5*time.Second), kadm.ElectLiveReplica, kadm.TopicsSet{topic: {0: {}}})
			if err == nil {
				err = elected[topic][0].Err
			}
			return err
		})
	}
	// Other records take the places of those that are lost: fewer than were lost
	// in one topic, more in the other.
	after, afterContinue := newHistory(from.topic, 1, 280), newHistory(fromContinue.topic, 1, 280)
	x.write("west", after, 30)
	x.write("west", afterContinue, 150)
	x.write("east", into, 50)
	x.owner.resume()
	x.c.start(leader)

	if in := x.mirror.incident("target-truncated", into.topic); in.TargetOffset != 200 && in.TargetOffset != 201 {
		t.Errorf("%+v", in)
	}
	x.exact(into, "east", "west", "east."+into.topic)
	x.mirror.incident("source-truncated", from.topic)
	x.mirror.becomes("stopped", from.topic, 0)
	x.mirror.incident("source-truncated", fromContinue.topic)
	eventually(t, 60*time.Second, "the new leader's records", func() error {
		log := x.read("south", "west."+fromContinue.topic)[0]
		if len(log) < 450 {
			_, full := x.mirror.partition(fromContinue.topic, 0)
			return fmt.Errorf("%d records, want 200 of both leaders, 100 of the old and 150 of the new; it is %s", len(log), full)
		}
		if v := fromContinue.check(map[int32][]*kgo.Record{0: log[:300]}); !v.ok() {
			return fmt.Errorf("the old leader's: %s", v)
		}
		if v := afterContinue.check(map[int32][]*kgo.Record{0: log[300:]}); !v.ok() {
			return fmt.Errorf("the new leader's: %s", v)
		}
		return nil
	})
	x.c.heal()
}
