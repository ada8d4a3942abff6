package coordinator_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
	"kmirror/internal/wire"
)

// TestRecordBytes holds what is written to __consumer_offsets, byte for byte:
// other programs read it.
func TestRecordBytes(t *testing.T) {
	s := newStory()
	var records []wire.Record
	take := func(effects []coordinator.Effect) {
		for _, e := range effects {
			if e, ok := e.(coordinator.Append); ok {
				records = append(records, e.Records...)
			}
		}
		s.do(effects)
	}
	r := joinRequest("g", "")
	instance := "i1"
	r.InstanceID = &instance
	take(s.group.Join(s.ticket("join"), r, coordinator.ClientInfo{ID: "c", Host: "/127.0.0.1"}, "i1-1", s.now))
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Version, sync.Group, sync.MemberID, sync.Generation = 4, "g", "i1-1", 1
	a := kmsg.NewSyncGroupRequestGroupAssignment()
	a.MemberID, a.MemberAssignment = "i1-1", []byte("all")
	sync.GroupAssignment = append(sync.GroupAssignment, a)
	take(s.group.Sync(s.ticket("sync"), sync))
	c := commitRequest("g", "i1-1", 1, "t", 3, 42)
	c.Topics[0].Partitions[0].LeaderEpoch = 2
	c.Topics[0].Partitions[0].Metadata = new("m")
	take(s.group.Commit(s.ticket("commit"), c, s.now))
	c = commitRequest("g", "i1-1", 1, "t", 4, 43)
	c.Version, c.RetentionTimeMillis = 4, 5000
	take(s.group.Commit(s.ticket("commit"), c, s.now))
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.MemberID = "i1-1"
	take(s.group.Leave(s.ticket("leave"), leave, s.now.Add(time.Second)))
	take(s.group.Delete(s.ticket("delete"), 2, s.now))

	var got strings.Builder
	for _, r := range records {
		value := "null"
		if r.Value != nil {
			value = hex.EncodeToString(r.Value)
		}
		fmt.Fprintf(&got, "# %s\n%s\n%s\n", recordText(r), hex.EncodeToString(r.Key), value)
	}
	const golden = "testdata/records.golden"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// FuzzLoad feeds any record to a coordinator that loads: it may skip it, no more.
func FuzzLoad(f *testing.F) {
	raw, err := os.ReadFile("testdata/records.golden")
	if err != nil {
		f.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	for i := 0; i+2 < len(lines); i += 3 {
		key, _ := hex.DecodeString(lines[i+1])
		value, _ := hex.DecodeString(lines[i+2])
		f.Add(key, value, lines[i+2] == "null")
	}
	f.Fuzz(func(t *testing.T, key, value []byte, null bool) {
		if null {
			value = nil
		}
		log := &memLog{records: map[int32][]coordinator.LogRecord{0: {{Record: wire.Record{Key: key, Value: value}, Producer: -1}}}}
		c := coordinator.New(coordinator.Config{Partitions: 1, Settings: coordinator.DefaultSettings(), Log: log})
		if err := c.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, g := range c.ListGroups(kmsg.NewPtrListGroupsRequest()).Groups {
			describe(c, g.Group, 6)
			committed(c, g.Group)
		}
		c.ExpireOffsets()
	})
}
