package main

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/console"
)

// One broker of three does not say what it knows of groups: the others' are shown, it is
// said that this is not all, and what it coordinates is not moved.
func TestGroupsWithoutOneBroker(t *testing.T) {
	east, west := threeBrokers(t, "east-id", "orders"), threeBrokers(t, "west-id", "east.orders")
	path := config(t, twoClustersConfig(east.ListenAddrs()[0], west.ListenAddrs()[0]))
	silent, known := map[string]bool{}, 0
	for i := range 12 {
		name := fmt.Sprint("group-", i)
		if silent[name] = east.CoordinatorFor(name) == 2; !silent[name] {
			known++
		}
		for c, topic := range map[*kfake.Cluster]string{east: "orders", west: "east.orders"} {
			commitOne(t, c, name, topic)
		}
	}
	if known == 0 || known == 12 {
		t.Fatalf("%d of 12 groups are known", known)
	}
	answering(east, kmsg.ListGroups, func(req kmsg.Request) kmsg.Response {
		if east.CurrentNode() != 2 {
			return nil
		}
		resp, _ := req.ResponseKind().(*kmsg.ListGroupsResponse)
		resp.ErrorCode = kerr.CoordinatorLoadInProgress.Code
		return resp
	})
	answering(east, kmsg.OffsetFetch, func(req kmsg.Request) kmsg.Response {
		if east.CurrentNode() != 2 {
			return nil
		}
		asked, _ := req.(*kmsg.OffsetFetchRequest)
		resp, _ := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		for _, g := range asked.Groups {
			resp.Groups = append(resp.Groups, kmsg.OffsetFetchResponseGroup{Group: g.Group, ErrorCode: kerr.CoordinatorLoadInProgress.Code})
		}
		return resp
	})

	var rows []groupRow
	o := kmirror(t, "", "groups", "east", "-o", "json", "-c", path).want(t, exitFailure, "not all groups are known", "brokers [2]")
	if err := json.Unmarshal([]byte(o.out), &rows); err != nil || len(rows) != known {
		t.Errorf("%v: %d groups of east are shown, want %d: %s", err, len(rows), known, o.out)
	}
	var answer console.GroupsAnswer
	o = kmirror(t, "", "groups", "east->west", "-o", "json", "-c", path).want(t, exitFailure, "not all groups are known", "brokers [2]")
	if err := json.Unmarshal([]byte(o.out), &answer); err != nil || answer.States["waiting"] != known || answer.States["error"] != 12-known {
		t.Errorf("%v: of the flow's groups %v are shown, want %d waiting: %s", err, answer.States, known, o.out)
	}
	var moved []movedGroup
	o = kmirror(t, "", "groups", "east->west", "--failback", "-o", "json", "-c", path).want(t, exitBusy, "not all groups are known")
	if err := json.Unmarshal([]byte(o.out), &moved); err != nil || len(moved) != 12 {
		t.Errorf("%v: %s", err, o.out)
	}
	for _, g := range moved {
		if refused := g.Refused != ""; refused != silent[g.Group] {
			t.Errorf("%+v", g)
		}
	}
}

// commitOne commits an offset for a group.
func commitOne(t *testing.T, c *kfake.Cluster, group, topic string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	all := kadm.Offsets{}
	all.Add(kadm.Offset{Topic: topic, At: 0, LeaderEpoch: -1})
	if err := kadm.NewClient(client).CommitAllOffsets(t.Context(), group, all); err != nil {
		t.Fatal(err)
	}
}
