package coordinator

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// JoinGroup answers when the join phase of the group ends, at once if the
// request is refused. When ctx ends first the answer is worthless and the
// member is as good as gone (see Group.Abandon). (key 11, v0-9).
func (c *Coordinator) JoinGroup(ctx context.Context, req *kmsg.JoinGroupRequest, client ClientInfo) *kmsg.JoinGroupResponse {
	refuse := func(code int16) *kmsg.JoinGroupResponse {
		r := newJoinResponse(req.Version)
		r.MemberID, r.ErrorCode = req.MemberID, code
		return r
	}
	session := time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	if req.Group == "" {
		return refuse(kerr.InvalidGroupID.Code)
	}
	if session < c.settings.MinSessionTimeout || session > c.settings.MaxSessionTimeout {
		return refuse(kerr.InvalidSessionTimeout.Code)
	}
	create, missing := req.MemberID == "", kerr.UnknownMemberID.Code
	if create { // then only the limit can be in the way; clients say this one plainly
		missing = kerr.GroupMaxSizeReached.Code
	}
	newID := client.ID + "-" + newUUID()
	if req.InstanceID != nil {
		newID = *req.InstanceID + "-" + newUUID()
	}
	group := strings.Clone(req.Group)
	return ask(ctx, c, group, create, missing, refuse, func(g *Group, t Ticket, now time.Time) []Effect {
		return g.Join(t, req, client, newID, now)
	})
}

// SyncGroup answers when the leader's assignment is durable. (key 14, v0-5).
func (c *Coordinator) SyncGroup(ctx context.Context, req *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse {
	refuse := func(code int16) *kmsg.SyncGroupResponse { return syncError(req.Version, code) }
	if req.Group == "" {
		return refuse(kerr.InvalidGroupID.Code)
	}
	if req.Version >= 5 && (req.ProtocolType == nil || req.Protocol == nil) {
		return refuse(kerr.InconsistentGroupProtocol.Code)
	}
	return ask(ctx, c, req.Group, false, kerr.UnknownMemberID.Code, refuse, func(g *Group, t Ticket, _ time.Time) []Effect {
		return g.Sync(t, req)
	})
}

// Heartbeat never waits. (key 12, v0-4).
func (c *Coordinator) Heartbeat(req *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse {
	resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
	if req.Group == "" {
		resp.ErrorCode = kerr.InvalidGroupID.Code
		return resp
	}
	s := c.shardOf(req.Group)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch code := s.ready(); {
	case code == kerr.CoordinatorLoadInProgress.Code: // it will be known soon: no reason to worry the member
		return resp
	case code != 0:
		resp.ErrorCode = code
		return resp
	}
	e := s.groups[req.Group]
	if e == nil {
		resp.ErrorCode = kerr.UnknownMemberID.Code
		return resp
	}
	resp.ErrorCode = e.group.Heartbeat(req, time.Now())
	if e.scheduled.IsZero() { // a deadline that only moved back is found out when the old one comes
		c.schedule(s, e)
	}
	return resp
}

// LeaveGroup waits for the record of a group that it empties. (key 13, v0-5).
func (c *Coordinator) LeaveGroup(ctx context.Context, req *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse {
	refuse := func(code int16) *kmsg.LeaveGroupResponse {
		resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
		if code != kerr.UnknownMemberID.Code || req.Version < 3 {
			resp.ErrorCode = code
			return resp
		}
		for _, who := range req.Members {
			m := kmsg.NewLeaveGroupResponseMember()
			m.MemberID, m.InstanceID, m.ErrorCode = who.MemberID, who.InstanceID, code
			resp.Members = append(resp.Members, m)
		}
		return resp
	}
	if req.Group == "" {
		return refuse(kerr.InvalidGroupID.Code)
	}
	return ask(ctx, c, req.Group, false, kerr.UnknownMemberID.Code, refuse, func(g *Group, t Ticket, now time.Time) []Effect {
		return g.Leave(t, req, now)
	})
}

// OffsetCommit answers when the commits are durable. The caller has taken out
// partitions that do not exist, and from v10 on has put in the topic names; topic
// ids come back as they were. A generation below 0 commits for a group without
// members, and makes it (a "simple" group). (key 8, v0-10).
func (c *Coordinator) OffsetCommit(ctx context.Context, req *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	if req.Version < 1 { // v0 knows no members
		req.Generation = -1
	}
	refuse := func(code int16) *kmsg.OffsetCommitResponse {
		resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		FailCommit(req, resp, code)
		return resp
	}
	create, missing := req.Generation < 0, kerr.IllegalGeneration.Code
	switch {
	case create:
		missing = kerr.PolicyViolation.Code // too many groups
	case req.Version >= 9:
		missing = kerr.GroupIDNotFound.Code
	}
	group := strings.Clone(req.Group)
	return ask(ctx, c, group, create, missing, refuse, func(g *Group, t Ticket, now time.Time) []Effect {
		return g.Commit(t, req, now)
	})
}

// TxnOffsetCommit answers when the commits are durable; they count when the
// producer's transaction is committed. The caller has taken out partitions that
// do not exist, and knows that the transaction reaches the group's partition.
// (key 28, v0-5).
func (c *Coordinator) TxnOffsetCommit(ctx context.Context, req *kmsg.TxnOffsetCommitRequest, producer TxnProducer) *kmsg.TxnOffsetCommitResponse {
	refuse := func(code int16) *kmsg.TxnOffsetCommitResponse {
		resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		FailTxnCommit(req, resp, code)
		return resp
	}
	if req.Group == "" {
		return refuse(kerr.InvalidGroupID.Code)
	}
	create, missing := req.Generation < 0, kerr.IllegalGeneration.Code
	if create {
		missing = kerr.PolicyViolation.Code // too many groups
	}
	return ask(ctx, c, strings.Clone(req.Group), create, missing, refuse, func(g *Group, t Ticket, now time.Time) []Effect {
		return g.CommitTransactional(t, req, producer, now)
	})
}

// OffsetDelete answers when the tombstones are durable. The caller has taken
// out partitions that do not exist. (key 47, v0).
func (c *Coordinator) OffsetDelete(ctx context.Context, req *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	refuse := func(code int16) *kmsg.OffsetDeleteResponse {
		resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
		resp.ErrorCode = code
		return resp
	}
	return ask(ctx, c, req.Group, false, kerr.GroupIDNotFound.Code, refuse, func(g *Group, t Ticket, now time.Time) []Effect {
		return g.DeleteOffsets(t, req, now)
	})
}

// DeleteGroups deletes empty groups, one after the other, and answers when the
// tombstones are durable. (key 42, v0-2).
func (c *Coordinator) DeleteGroups(ctx context.Context, req *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse {
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	seen := make(map[string]bool)
	for _, group := range req.Groups {
		if seen[group] {
			continue
		}
		seen[group] = true
		refuse := func(code int16) *kmsg.DeleteGroupsResponse { return deleteResponse(req.Version, group, code) }
		one := ask(ctx, c, group, false, kerr.GroupIDNotFound.Code, refuse, func(g *Group, t Ticket, now time.Time) []Effect {
			return g.Delete(t, req.Version, now)
		})
		resp.Groups = append(resp.Groups, one.Groups...)
	}
	return resp
}

// groupOperations are READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and ALTER_CONFIGS
// as DescribeGroups' bit field: everything, for there is no authoriser.
const groupOperations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11

// DescribeGroups shows groups with their members. A group that does not exist
// is Dead; from v6 on it is GROUP_ID_NOT_FOUND as well. (key 15, v0-6).
func (c *Coordinator) DescribeGroups(req *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	for _, group := range req.Groups {
		r := c.describe(group, req.Version)
		if req.IncludeAuthorizedOperations && r.ErrorCode == 0 {
			r.AuthorizedOperations = groupOperations
		}
		resp.Groups = append(resp.Groups, r)
	}
	return resp
}

func (c *Coordinator) describe(group string, version int16) kmsg.DescribeGroupsResponseGroup {
	r := kmsg.NewDescribeGroupsResponseGroup()
	r.Group = group
	s := c.shardOf(group)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.ErrorCode = s.ready(); r.ErrorCode != 0 {
		return r
	}
	if e := s.groups[group]; e != nil && e.group.State() != Dead {
		return e.group.Describe()
	}
	r.State = Dead.String()
	if version >= 6 {
		r.ErrorCode = kerr.GroupIDNotFound.Code
		msg := "Group " + group + " not found."
		r.ErrorMessage = &msg
	}
	return r
}

// ListGroups lists all groups, sorted, filtered by state (v4) and type (v5);
// filters are not case sensitive. (key 16, v0-5).
func (c *Coordinator) ListGroups(req *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse {
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	allows := func(filter []string, value string) bool {
		return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, value) })
	}
	for _, s := range c.shards {
		s.mu.Lock()
		code := s.ready()
		for _, e := range s.groups {
			l := e.group.List()
			if e.group.State() != Dead && allows(req.StatesFilter, l.GroupState) && allows(req.TypesFilter, l.GroupType) {
				resp.Groups = append(resp.Groups, l)
			}
		}
		s.mu.Unlock()
		if code != 0 {
			resp.ErrorCode, resp.Groups = code, nil
			return resp
		}
	}
	slices.SortFunc(resp.Groups, func(a, b kmsg.ListGroupsResponseGroup) int { return strings.Compare(a.Group, b.Group) })
	return resp
}
