package integration_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// syncsOnTarget: where they are written, by whose names.
func (s *mm2Story) syncsOnTarget(w *world, t *testing.T) {
	for _, c := range []struct{ cluster, topic string }{
		{"east", "mm2-offset-syncs.west.internal"}, // on the source: the target's name
		{"west", "mm2-offset-syncs.east.internal"},
		{"dash", "mm2-offset-syncs-east-internal"}, // on the target: the source's
		{"under", "mm2-offset-syncs.east.internal"},
	} {
		eventually(t, 20*time.Second, c.topic+" in "+c.cluster, func() error {
			topics, err := w.admin(c.cluster).ListTopics(w.ctx(10*time.Second), c.topic)
			if err == nil {
				err = topics[c.topic].Err
			}
			if n := len(topics[c.topic].Partitions); err == nil && n != 1 {
				err = fmt.Errorf("%d partitions", n)
			}
			return err
		})
		if got := w.config(c.cluster, c.topic, "cleanup.policy"); got != "compact" {
			t.Errorf("%s: cleanup.policy is %q", c.topic, got)
		}
	}
	topics, err := w.admin("east").ListTopics(w.ctx(10 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for name := range topics {
		if strings.HasPrefix(name, "mm2-offset-syncs") && name != "mm2-offset-syncs.west.internal" {
			t.Errorf("east has %s", name)
		}
	}
}

func (s *mm2Story) withoutSyncs(w *world, t *testing.T) {
	for _, cluster := range []string{"same", "late"} {
		topics, err := w.admin(cluster).ListTopics(w.ctx(10 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for name := range topics {
			if strings.HasPrefix(name, "mm2-offset-syncs") {
				t.Errorf("%s has %s", cluster, name)
			}
		}
	}
}

// targetAnew: the copy is deleted and made anew with other offsets; MirrorMaker
// 2's store, which has read the old syncs, is not led past a record by them.
func (s *mm2Story) targetAnew(w *world, t *testing.T) {
	h := newHistory("sep-anew", 1, 100)
	w.create("east", h.topic, 1)
	w.write("east", h, 200)
	from, to := mirrorPlace{"east", h.topic}, mirrorPlace{"dash", "east-sep-anew"}
	w.mirrored(from.cluster, from.topic, to.cluster, to.topic)
	synced := func(upstream, below int64) {
		t.Helper()
		eventually(t, 30*time.Second, fmt.Sprintf("the sync of %d", upstream), func() error {
			last := checkpoint.OffsetSync{Upstream: -1}
			for _, r := range w.read("dash", "mm2-offset-syncs-east-internal")[0] {
				if o, err := checkpoint.DecodeOffsetSync(wire.Record{Key: r.Key, Value: r.Value}); err == nil && o.Topic == h.topic {
					last = o
				}
			}
			if last.Upstream != upstream || last.Downstream >= below {
				return fmt.Errorf("the newest is %+v", last)
			}
			return nil
		})
	}
	synced(199, 200)
	w.expire("east", h.topic, 120)
	if _, err := w.admin("dash").DeleteTopics(w.ctx(20*time.Second), to.topic); err != nil {
		t.Fatal(err)
	}
	w.write("east", h, 30)
	synced(229, 199)
	s.storeHolds(w, t, from, to, "target.cluster.alias=dash", "offset-syncs.topic.location=target", "replication.policy.separator=-")
}

// offsetSyncStore: MirrorMaker 2's own store translates by our offset syncs, and
// never past the record that the group would read next.
func (s *mm2Story) offsetSyncStore(w *world, t *testing.T) {
	for _, c := range []struct {
		name   string
		config []string
		from   mirrorPlace
		to     mirrorPlace
	}{
		{"transactions", []string{"target.cluster.alias=west"}, mirrorPlace{"east", "mm-payments"}, mirrorPlace{"west", "east.mm-payments"}},
		{"testPastOffsetTranslation", []string{"target.cluster.alias=west"}, mirrorPlace{"east", "mm-behind"}, mirrorPlace{"west", "east.mm-behind"}},
		{"compacted", []string{"target.cluster.alias=west"}, mirrorPlace{"east", "mm-compacted"}, mirrorPlace{"west", "east.mm-compacted"}},
		{"on the target", []string{"target.cluster.alias=dash", "offset-syncs.topic.location=target", "replication.policy.separator=-"}, mirrorPlace{"east", "sep-one"}, mirrorPlace{"dash", "east-sep-one"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			s.storeHolds(w, t, c.from, c.to, c.config...)
		})
	}
}

// storeHolds has MirrorMaker 2's store translate offsets of partition 0 from its
// beginning to its end.
func (s *mm2Story) storeHolds(w *world, t *testing.T, from, to mirrorPlace, config ...string) {
	t.Helper()
	source, target := w.read(from.cluster, from.topic)[0], w.read(to.cluster, to.topic)[0]
	end := w.ends(w.admin(from.cluster), from.topic)[0]
	var asked []string
	for i := range int64(40) {
		asked = append(asked, strconv.FormatInt(end*i/39, 10))
	}
	config = append([]string{
		"name=MirrorCheckpointConnector", "connector.class=org.apache.kafka.connect.mirror.MirrorCheckpointConnector",
		"source.cluster.alias=east", "source.cluster.bootstrap.servers=" + w.addr(from.cluster), "target.cluster.bootstrap.servers=" + w.addr(to.cluster),
	}, config...)
	for _, memory := range []string{"all", "forgetful"} {
		words := append([]string{"offsetSyncStore", memory, from.topic, "0"}, asked...)
		translated, again := 0, int64(0)
		for _, line := range s.java.ask(t, append(words, config...)...) {
			from, to, _ := strings.Cut(line, " ")
			if to == "none" || to == "-1" {
				continue
			}
			translated++
			offset, there := numeral(t, from), numeral(t, to)
			exact := exactly(source, target, offset)
			again += exact - there
			if there > exact {
				t.Errorf("%s: %d is translated to %d, past %d", memory, offset, there, exact)
			}
			if offset == end && there != exact {
				t.Errorf("%s: the end is translated to %d, want %d", memory, there, exact)
			}
		}
		if translated == 0 {
			t.Errorf("%s: nothing is translated", memory)
		}
		t.Logf("%s: %d of %d offsets are translated, %d records would be read again in all", memory, translated, len(asked), again)
	}
}
