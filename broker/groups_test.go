package broker_test

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The state machine is tested in broker/coordinator. Here: that every version
// of every request reaches it and comes back.
func TestGroupRequestsInEveryVersion(t *testing.T) {
	c := dial(t, start(t))
	id := createTopic(c, "t", 1)

	for version := int16(0); version <= 6; version++ {
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey, req.CoordinatorKeys = "g", []string{"g", "h"}
		resp := ask[*kmsg.FindCoordinatorResponse](c, version, req)
		if version < 4 && resp.NodeID != 1 || version >= 4 && (len(resp.Coordinators) != 2 || resp.Coordinators[1].NodeID != 1) {
			t.Errorf("FindCoordinator %d: %+v", version, resp)
		}
	}

	generation, member := int32(0), ""
	for version := int16(0); version <= 9; version++ {
		join := kmsg.NewPtrJoinGroupRequest()
		join.Group, join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = "g", 10_000, 10_000
		join.MemberID, join.ProtocolType = member, "consumer"
		join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: []byte{byte(version)}}}
		resp := ask[*kmsg.JoinGroupResponse](c, version, join)
		wantCode(t, "join", resp.ErrorCode, nil)
		if resp.LeaderID != resp.MemberID || len(resp.Members) != 1 || resp.Generation <= generation {
			t.Fatalf("JoinGroup %d: %+v after generation %d", version, resp, generation)
		}
		generation, member = resp.Generation, resp.MemberID

		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Group, sync.Generation, sync.MemberID = "g", generation, member
		sync.ProtocolType, sync.Protocol = &join.ProtocolType, &join.Protocols[0].Name
		sync.GroupAssignment = []kmsg.SyncGroupRequestGroupAssignment{{MemberID: member, MemberAssignment: []byte("all")}}
		synced := ask[*kmsg.SyncGroupResponse](c, min(version, 5), sync)
		wantCode(t, "sync", synced.ErrorCode, nil)
		if string(synced.MemberAssignment) != "all" {
			t.Errorf("SyncGroup: assignment %q", synced.MemberAssignment)
		}
		beat := kmsg.NewPtrHeartbeatRequest()
		beat.Group, beat.Generation, beat.MemberID = "g", generation, member
		wantCode(t, "heartbeat", ask[*kmsg.HeartbeatResponse](c, min(version, 4), beat).ErrorCode, nil)
	}
	for version := int16(2); version <= 10; version++ {
		commit := kmsg.NewPtrOffsetCommitRequest()
		commit.Group, commit.Generation, commit.MemberID = "g", generation, member
		ct := kmsg.NewOffsetCommitRequestTopic()
		missing := kmsg.NewOffsetCommitRequestTopic()
		if version >= 10 {
			ct.TopicID, missing.TopicID = id, [16]byte{5}
		} else {
			ct.Topic, missing.Topic = "t", "missing"
		}
		cp := kmsg.NewOffsetCommitRequestTopicPartition()
		cp.Offset = int64(version)
		missing.Partitions = append(missing.Partitions, cp)
		other := cp
		other.Partition = 9
		ct.Partitions = append(ct.Partitions, cp, other)
		commit.Topics = append(commit.Topics, ct, missing)
		resp := ask[*kmsg.OffsetCommitResponse](c, version, commit)
		if len(resp.Topics) != 2 || len(resp.Topics[0].Partitions) != 2 {
			t.Fatalf("OffsetCommit %d: %+v", version, resp.Topics)
		}
		wantCode(t, "commit", resp.Topics[0].Partitions[0].ErrorCode, nil)
		wantCode(t, "commit for partition 9", resp.Topics[0].Partitions[1].ErrorCode, kerr.UnknownTopicOrPartition)
		want := kerr.UnknownTopicOrPartition
		if version >= 10 {
			want = kerr.UnknownTopicID
		}
		wantCode(t, "commit for a missing topic", resp.Topics[1].Partitions[0].ErrorCode, want)
	}

	for version := int16(1); version <= 10; version++ {
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Group = "g"
		req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{0}}}
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = "g"
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", TopicID: id, Partitions: []int32{0}}}
		req.Groups = append(req.Groups, g)
		for _, all := range []bool{false, true} {
			if all && version < 2 {
				continue
			}
			if all {
				req.Topics, req.Groups[0].Topics = nil, nil
			}
			resp := ask[*kmsg.OffsetFetchResponse](c, version, req)
			var offset int64
			if version < 8 {
				offset = resp.Topics[0].Partitions[0].Offset
			} else {
				offset = resp.Groups[0].Topics[0].Partitions[0].Offset
			}
			if offset != 10 {
				t.Errorf("OffsetFetch %d, all %v: offset %d, want 10", version, all, offset)
			}
			if version >= 10 && resp.Groups[0].Topics[0].TopicID != id {
				t.Errorf("OffsetFetch %d, all %v: topic id %x", version, all, resp.Groups[0].Topics[0].TopicID)
			}
		}
	}

	for version := int16(0); version <= 6; version++ {
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Groups = []string{"g", "missing"}
		resp := ask[*kmsg.DescribeGroupsResponse](c, version, req)
		if g := resp.Groups[0]; g.State != "Stable" || len(g.Members) != 1 || g.Members[0].ClientID != "test-client" || g.Members[0].ClientHost != "/127.0.0.1" {
			t.Errorf("DescribeGroups %d: %+v", version, g)
		}
		if resp.Groups[1].State != "Dead" {
			t.Errorf("DescribeGroups %d: a missing group is %q", version, resp.Groups[1].State)
		}
	}
	for version := int16(0); version <= 5; version++ {
		resp := ask[*kmsg.ListGroupsResponse](c, version, kmsg.NewPtrListGroupsRequest())
		if len(resp.Groups) != 1 || resp.Groups[0].Group != "g" {
			t.Errorf("ListGroups %d: %+v", version, resp.Groups)
		}
	}

	remove := kmsg.NewPtrDeleteGroupsRequest()
	remove.Groups = []string{"g", "missing"}
	gone := ask[*kmsg.DeleteGroupsResponse](c, 2, remove)
	wantCode(t, "delete a group with members", gone.Groups[0].ErrorCode, kerr.NonEmptyGroup)
	wantCode(t, "delete a missing group", gone.Groups[1].ErrorCode, kerr.GroupIDNotFound)
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group, leave.Members = "g", []kmsg.LeaveGroupRequestMember{{MemberID: member}}
	left := ask[*kmsg.LeaveGroupResponse](c, 5, leave)
	wantCode(t, "leave", left.Members[0].ErrorCode, nil)

	drop := kmsg.NewPtrOffsetDeleteRequest()
	drop.Group = "g"
	drop.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}, {Partition: 9}}}}
	dropped := ask[*kmsg.OffsetDeleteResponse](c, 0, drop)
	wantCode(t, "delete an offset", dropped.Topics[0].Partitions[0].ErrorCode, nil)
	wantCode(t, "delete the offset of partition 9", dropped.Topics[len(dropped.Topics)-1].Partitions[len(dropped.Topics[len(dropped.Topics)-1].Partitions)-1].ErrorCode, kerr.UnknownTopicOrPartition)
	gone = ask[*kmsg.DeleteGroupsResponse](c, 0, remove)
	if code := gone.Groups[0].ErrorCode; code != 0 && code != kerr.GroupIDNotFound.Code { // the last offset may have taken the group along
		t.Errorf("delete an empty group: %v", kerr.ErrorForCode(code))
	}

	nameless := kmsg.NewPtrJoinGroupRequest()
	nameless.Group, nameless.SessionTimeoutMillis, nameless.ProtocolType = "other", 10_000, "consumer"
	nameless.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
	if resp := ask[*kmsg.JoinGroupResponse](c, 4, nameless); resp.ErrorCode != kerr.MemberIDRequired.Code || resp.MemberID == "" {
		t.Errorf("a join without an id: %+v", resp)
	}
}
