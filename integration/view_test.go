package integration_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// viewed is what the stories read of groups, translate, lag and rpo.
type viewed struct {
	Groups []struct {
		Group, State string
		Shortfall    int64
		SourceLag    int64   `json:"source_lag"`
		TargetLag    int64   `json:"target_lag"`
		SourceAge    float64 `json:"source_lag_seconds"`
		Partitions   []struct {
			Partition    int32
			State        string
			SourceOffset int64 `json:"source_offset"`
			Translated   int64
			TargetOffset int64 `json:"target_offset"`
			Shortfall    int64
		}
	}
	Total int
}

type viewedLag struct {
	Records         int64
	Bytes           int64
	Seconds         float64
	Unknown         int        `json:"unknown_partitions"`
	Complete        bool       `json:"complete"`
	SourceReachable bool       `json:"source_reachable"`
	AsOf            time.Time  `json:"as_of"`
	Newest          *time.Time `json:"newest_mirrored"`
	Heartbeat       *time.Time
	GroupsBeyond    int `json:"groups_beyond"`
}

// TestView goes through what an operator sees of a flow, from Apache Kafka to an
// embedded cluster: in step, behind, with the daemon and without, and when the
// source is gone.
func TestView(t *testing.T) {
	w := newWorld(t)
	kafka := w.kafka("east")
	site := w.daemon("site", "clusters:\n  west: {embedded: {nodes: [{{addr \"west\"}}]}}\n")
	site.start()
	const each, group = 1000, "billing"
	h := newHistory("orders", 3, 200)
	w.create("east", "orders", 3)
	w.create("east", "audit", 1)
	w.write("east", h, each)
	site.ready(readyWithin)
	d := w.run("main", mirrorOnly)
	v := &view{t: t, d: d}

	w.commit("east", group, "orders", map[int32]int64{0: 411, 1: 7, 2: 860})
	w.commit("east", "fraud", "orders", map[int32]int64{0: each, 1: each, 2: each})
	w.commit("east", "reports", "orders", map[int32]int64{0: 10, 1: 10, 2: 10})
	eventually(t, 40*time.Second, "groups in step", func() error { return v.states(group, "in-step", "fraud", "in-step", "reports", "in-step") })

	t.Run("groups", func(t *testing.T) {
		v := v.in(t)
		w.commit("west", "reports", "east.orders", map[int32]int64{1: 5})
		eventually(t, 20*time.Second, "a group that somebody moved", func() error { return v.states("reports", "diverged") })
		v.shows([]string{"groups", "east->west"}, 0, "reports", "diverged", "at 10 in east", "at 5 in west", "3 groups: 2 in-step, 1 diverged")
		v.shows([]string{"groups", "east->west", group}, 0, "411", "SAME PLACE")
		var detail viewed
		v.json(&detail, "groups", "east->west", group)
		g := detail.Groups[0]
		if g.SourceLag != 3*each-411-7-860 || g.TargetLag != g.SourceLag || g.SourceAge <= 0 || g.SourceAge > 3*3600 {
			t.Errorf("%+v", g)
		}
		v.shows([]string{"groups", "east->west", "--fail-on", "diverged"}, 6, "group reports is diverged")
		v.shows([]string{"groups", "east->west", "--match", "f.*", "--fail-on", "diverged,error", "--max-lag", "0"}, 0, "fraud")
		eventually(t, 20*time.Second, "the metric of diverged groups", func() error {
			if n := d.metric("kmirror_groups", `state="diverged"`); n != 1 {
				return fmt.Errorf("it is %v", n)
			}
			return nil
		})
		v.shows([]string{"groups", "east->west", "--adopt", "reports", "--dry-run"}, 0, "would be moved")
		v.shows([]string{"groups", "east->west", "--adopt", "reports"}, 0, "moved")
		eventually(t, 20*time.Second, "an adopted group in step", func() error { return v.states("reports", "in-step") })
		w.commit("west", "reports", "east.orders", map[int32]int64{2: 30})
		eventually(t, 20*time.Second, "a group that moved on", func() error { return v.states("reports", "diverged") })
		v.shows([]string{"groups", "east->west", "reports", "--failback"}, 0, "moved", "stands there already")
		eventually(t, 20*time.Second, "a group that went back", func() error { return v.states("reports", "in-step") })
		if at := w.committed(w.admin("east"), "reports", "orders")[2]; at != 30 {
			t.Errorf("reports stands at %d in east, want 30", at)
		}
	})
	t.Run("translate", func(t *testing.T) {
		v := v.in(t)
		v.shows([]string{"translate", "east", "west", group}, 0, "411", "exact")
		v.shows([]string{"translate", "west", "east", group}, 0, "411", "exact")
		v.shows([]string{"translate", "east", "west", "--topic", "orders", "-p", "1", "--offset", "7,999,1005"}, 0, "exact", "5 records not mirrored yet")
		v.shows([]string{"translate", "east", "west", "--timestamp", "-1h"}, 0, "east/orders", "exact")
		v.shows([]string{"translate", "west", "east", "--topic", "east.orders", "--timestamp", "2030-01-01T00:00:00Z"}, 0, "1000")
		v.shows([]string{"translate", "east", "west", "--topic", "orders", "--timestamp", "soon"}, 2, "how long ago")
	})
	eventually(t, 20*time.Second, "no lag", func() error { return v.lag(0, "lag", "east->west") })
	v.shows([]string{"lag"}, 0, "in step")
	v.shows([]string{"rpo"}, 0, "would lose nothing")
	v.shows([]string{"status"}, 0, "OFFSET MAP IN")

	d.mustKmirror("pause", "east->west", "orders")
	time.Sleep(300 * time.Millisecond) // what the pause lets finish
	more := newHistory("orders", 3, 200)
	w.write("east", more, 200)
	w.commit("east", group, "orders", map[int32]int64{0: each + 100})
	for _, way := range [][]string{{"lag", "east->west"}, {"lag", "east->west", "--direct"}, {"rpo", "east->west"}, {"rpo", "east->west", "--direct"}} {
		eventually(t, 20*time.Second, fmt.Sprint("the lag of a paused topic by ", way), func() error { return v.lag(600, way...) })
	}
	if n := d.metric("kmirror_lag_records", `topic="orders"`); n != 600 {
		t.Errorf("kmirror_lag_records is %v", n)
	}
	if n := d.metric("kmirror_rpo_bytes"); n < 600*100 {
		t.Errorf("kmirror_rpo_bytes is %v", n)
	}
	v.shows([]string{"lag", "--partitions"}, 0, "orders", "200", "paused")
	v.shows([]string{"lag", "--fail-above", "1s"}, 6, "allowed")
	v.shows([]string{"rpo", "east->west"}, 0, "would lose 600 records", "read beyond what is mirrored", group)
	v.shows([]string{"groups", "east->west", group}, 0, "waiting", "100 not mirrored yet")

	// A new process knows it too, from the map; and no process at all.
	d.stop(20 * time.Second)
	v.shows([]string{"rpo", "east->west"}, 0, "would lose 600 records", group)
	d.start()
	d.ready(readyWithin)
	eventually(t, 20*time.Second, "the lag after a restart", func() error { return v.lag(600, "lag", "east->west") })

	kafka.kill()
	eventually(t, 40*time.Second, "the source's absence", func() error {
		var found []viewedLag
		v.json(&found, "rpo", "east->west")
		if r := found[0]; r.SourceReachable || r.Records != 600 || r.AsOf.IsZero() {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	v.shows([]string{"rpo", "east->west"}, 0, "east does not answer since", "would have lost 600 records")
	v.shows([]string{"lag", "east->west"}, 0, "east does not answer since", "then it was behind by 600 records")
	d.stop(30 * time.Second)
	v.shows([]string{"rpo", "east->west", "--timeout", "3s"}, 0, "no daemon here knows", "the newest record in west is of", "its heartbeat, is of")
	v.shows([]string{"translate", "east", "west", "--topic", "orders", "--offset", "411"}, 0, "exact")
	v.shows([]string{"lag", "--timeout", "3s"}, 3, "cluster east does not answer")
	v.keep()
}

// view runs commands and keeps what they printed.
type view struct {
	t     *testing.T
	d     *daemon
	words *strings.Builder
	of    *view
}

func (v *view) in(t *testing.T) *view { return &view{t: t, d: v.d, of: v} }

func (v *view) note(args []string, out, err string) {
	for v.of != nil {
		v = v.of
	}
	if v.words == nil {
		v.words = &strings.Builder{}
	}
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if strings.ContainsAny(arg, ">*") {
			words[i] = "'" + arg + "'"
		}
	}
	fmt.Fprintf(v.words, "$ kmirror %s\n%s%s\n", strings.Join(words, " "), out, err)
}

// shows runs a command and wants its exit code and what it says.
func (v *view) shows(args []string, code int, says ...string) {
	v.t.Helper()
	out, err, got := v.d.kmirrorWithin(30*time.Second, args...)
	v.note(args, out, err)
	if got != code {
		v.t.Errorf("%v: exit code %d, want %d\n%s%s", args, got, code, out, err)
	}
	for _, s := range says {
		if !strings.Contains(out+err, s) {
			v.t.Errorf("%v does not say %q:\n%s%s", args, s, out, err)
		}
	}
}

func (v *view) json(into any, args ...string) {
	v.t.Helper()
	out, text, code := v.d.kmirrorWithin(30*time.Second, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil || code != 0 {
		v.t.Fatalf("%v: exit code %d, %v\n%s%s", args, code, err, out, text)
	}
}

// states wants groups in states, by the command and by the daemon alike.
func (v *view) states(wanted ...string) error {
	var shown, told viewed
	v.json(&shown, "groups", "east->west")
	body, err := v.d.get("/api/v1/groups?flow=east-%3Ewest")
	if err == nil {
		err = json.Unmarshal(body, &told)
	}
	if err != nil {
		return err
	}
	for i := 0; i < len(wanted); i += 2 {
		for by, answer := range map[string]viewed{"command": shown, "daemon": told} {
			got := "not there"
			for _, g := range answer.Groups {
				if g.Group == wanted[i] {
					got = g.State
				}
			}
			if got != wanted[i+1] {
				return fmt.Errorf("by the %s, %s is %s", by, wanted[i], got)
			}
		}
	}
	return nil
}

// lag wants so many records behind.
func (v *view) lag(records int64, args ...string) error {
	var found []viewedLag
	v.json(&found, args...)
	l := found[0]
	if l.Records != records || l.Unknown != 0 || !l.Complete || records > 0 && (l.Bytes <= 0 || l.Seconds <= 0 || l.Seconds > 3*3600) {
		return fmt.Errorf("%+v", l)
	}
	return nil
}

// keep writes what was shown where KMIRROR_KEEP says.
func (v *view) keep() {
	if dir := os.Getenv("KMIRROR_KEEP"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "view.txt"), []byte(v.words.String()), 0o644); err != nil {
			v.t.Error(err)
		}
	}
}

// TestManyGroups asks for two hundred groups of a hundred partitions: in seconds,
// and with few requests.
func TestManyGroups(t *testing.T) {
	w := newWorld(t)
	w.run("main", twoClusters)
	d := w.daemon("main", twoClusters)
	const partitions, groups = 100, 200
	w.create("east", "orders", partitions)
	client := w.client("east", kgo.RecordPartitioner(kgo.ManualPartitioner()))
	var records []*kgo.Record
	for p := range int32(partitions) {
		for range 10 {
			records = append(records, &kgo.Record{Topic: "orders", Partition: p, Value: []byte("x")})
		}
	}
	if err := client.ProduceSync(w.ctx(30*time.Second), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	admin := w.admin("east")
	for i := range groups {
		offsets := kadm.Offsets{}
		for p := range int32(partitions) {
			offsets.Add(kadm.Offset{Topic: "orders", Partition: p, At: int64(i % 10), LeaderEpoch: -1})
		}
		if _, err := admin.CommitOffsets(w.ctx(30*time.Second), fmt.Sprintf("group-%04d", i), offsets); err != nil {
			t.Fatal(err)
		}
	}
	v := &view{t: t, d: d}
	began := time.Now()
	v.shows([]string{"groups", "east->west", "--limit", "5"}, 0, "200 groups", "the 5 that are worst off are shown")
	took := time.Since(began)
	t.Logf("%d groups of %d partitions in %v", groups, partitions, took.Round(time.Millisecond))
	if took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	v.shows([]string{"groups", "east->west", "--match", "group-000[0-4]"}, 0, "5 groups", "group-0004")
}
