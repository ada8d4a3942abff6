package integration_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// missing lets a source topic grow where the mirror may not extend its copy.
func (x *troubles) missing() {
	h := x.begin("grown", 50)
	x.denied("east."+h.topic, kadm.OpAlter, func() {
		if _, err := x.admin("east").CreatePartitions(x.ctx(20*time.Second), 1, h.topic); err != nil {
			x.t.Fatal(err)
		}
		h.fates[1] = nil
		eventually(x.t, 20*time.Second, "two partitions in east", func() error {
			if n := len(x.ends(x.admin("east"), h.topic)); n != 2 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		x.write("east", h, 50)
		x.mirror.incident("target-partition-missing", h.topic)
		eventually(x.t, 20*time.Second, "the partition that has a place", func() error {
			if n := len(x.read("west", "east."+h.topic)[0]); n != 100 {
				return fmt.Errorf("%d records", n)
			}
			return nil
		})
	})
	x.exact(h, "east", "west", "east."+h.topic)
}

func (x *troubles) delete(cluster, topic string) {
	x.t.Helper()
	deleted, err := x.admin(cluster).DeleteTopics(x.ctx(30*time.Second), topic)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		x.t.Fatalf("delete %s in %s: %v", topic, cluster, err)
	}
}

func (x *troubles) targetDeleted() {
	h := x.begin("gone", 300)
	x.delete("west", "east."+h.topic)
	x.write("east", h, 50)
	x.mirror.incident("target-deleted", h.topic)
	x.exact(h, "east", "west", "east."+h.topic)
}

func (x *troubles) targetDeletedStop() {
	h := x.begin("gone-stop", 300)
	x.delete("west", "east."+h.topic)
	x.write("east", h, 50)
	x.mirror.incident("target-deleted", h.topic)
	eventually(x.t, 40*time.Second, "the topic stopped", func() error {
		if why := x.mirror.topicError(h.topic); !strings.Contains(why, "stopped, by policy") {
			return fmt.Errorf("its error is %q", why)
		}
		return nil
	})
	if ends := x.ends(x.admin("west"), "east."+h.topic); ends != nil {
		x.t.Errorf("the target topic was made anew: it ends at %v", ends)
	}
	x.mirror.mustKmirror("resume", "east->west", h.topic, "--accept", "target-deleted")
	x.exact(h, "east", "west", "east."+h.topic)
}

// recreate deletes the source topic and makes another of its name.
func (x *troubles) recreate(name string) (before, after *history) {
	before = x.begin(name, 300)
	x.delete("east", before.topic)
	after = newHistory(before.topic, 1, 250)
	eventually(x.t, 20*time.Second, "the name is free", func() error {
		_, err := x.admin("east").CreateTopic(x.ctx(10*time.Second), 1, 1, nil, after.topic)
		return err
	})
	x.write("east", after, 120)
	return before, after
}

func (x *troubles) sourceRecreated() {
	h, _ := x.recreate("anew")
	x.mirror.incident("source-recreated", h.topic)
	x.mirror.becomes("stopped", h.topic, 0)
	if v := h.check(x.read("west", "east."+h.topic)); !v.ok() {
		x.t.Errorf("the copy of the old topic:\n%s", v)
	}
}

func (x *troubles) sourceRecreatedBegin() {
	before, after := x.recreate("anew-begin")
	x.mirror.incident("source-recreated", before.topic)
	var log []*kgo.Record
	eventually(x.t, 40*time.Second, "both topics' records", func() error {
		log = x.read("west", "east."+before.topic)[0]
		if len(log) < 420 {
			_, full := x.mirror.partition(before.topic, 0)
			return fmt.Errorf("%d records; it is %s", len(log), full)
		}
		return nil
	})
	if v := before.check(map[int32][]*kgo.Record{0: log[:300]}); !v.ok() {
		x.t.Errorf("the old topic's records:\n%s", v)
	}
	if v := after.check(map[int32][]*kgo.Record{0: log[300:]}); !v.ok() {
		x.t.Errorf("the new topic's records:\n%s", v)
	}
}

// stranger writes to the copy.
func (x *troubles) stranger(h *history) {
	x.t.Helper()
	client := x.client("west", kgo.DefaultProduceTopic("east."+h.topic))
	if err := client.ProduceSync(x.ctx(20*time.Second), &kgo.Record{Value: []byte("stranger")}).FirstErr(); err != nil {
		x.t.Fatal(err)
	}
}

func (x *troubles) foreignReport() {
	h := x.begin("strange", 100)
	x.stranger(h)
	x.write("east", h, 100)
	x.whole(h)
	if in := x.mirror.incident("foreign-write", h.topic); in.TargetOffset < 100 || in.Count != 1 {
		x.t.Errorf("%+v", in)
	}
}

func (x *troubles) foreignStop() {
	h := x.begin("alone", 100)
	x.stranger(h)
	x.write("east", h, 1)
	x.mirror.incident("foreign-write", h.topic)
	x.mirror.becomes("stopped", h.topic, 0)
	x.write("east", h, 100)
	x.mirror.mustKmirror("resume", "east->west", h.topic, "--accept", "foreign-write")
	x.whole(h)
}

func (w *world) alter(cluster, topic string, configs ...string) {
	w.t.Helper()
	var changes []kadm.AlterConfig
	for _, config := range configs {
		key, value, _ := strings.Cut(config, "=")
		changes = append(changes, kadm.AlterConfig{Name: key, Value: &value})
	}
	if _, err := w.admin(cluster).AlterTopicConfigs(w.ctx(20*time.Second), changes, topic); err != nil {
		w.t.Fatal(err)
	}
}

// drift makes the two topics whose configs will be changed at the target. To be
// somebody's doing, a difference must come after both sides once agreed: hence
// it is the first of all troubles.
func (x *troubles) drift() {
	x.begin("drift", 10, "retention.ms=86400000")
	x.begin("drift-report", 10, "retention.ms=86400000")
}

func (x *troubles) driftRepair() {
	topic := x.topic("drift")
	x.alter("west", "east."+topic, "retention.ms=7200000")
	x.mirror.incident("config-drift", topic)
	eventually(x.t, 30*time.Second, "the source's retention at the target", func() error {
		if got := x.config("west", "east."+topic, "retention.ms"); got != "86400000" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

func (x *troubles) driftReport() {
	topic := x.topic("drift-report")
	x.alter("west", "east."+topic, "retention.ms=7200000")
	x.mirror.incident("config-drift", topic)
	if got := x.config("west", "east."+topic, "retention.ms"); got != "7200000" {
		x.t.Errorf("retention.ms at the target is %s: only to be reported, and repaired all the same", got)
	}
}
