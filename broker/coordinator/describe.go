package coordinator

import "github.com/twmb/franz-go/pkg/kmsg"

// Describe is the group for DescribeGroups: metadata and assignments only
// while it is stable.
func (g *Group) Describe() kmsg.DescribeGroupsResponseGroup {
	r := kmsg.NewDescribeGroupsResponseGroup()
	r.Group, r.State = g.id, g.state.String()
	if g.protocolType != nil {
		r.ProtocolType = *g.protocolType
	}
	if g.state == Stable && g.protocol != nil {
		r.Protocol = *g.protocol
	}
	for _, m := range g.members {
		d := kmsg.NewDescribeGroupsResponseGroupMember()
		d.MemberID, d.InstanceID, d.ClientID, d.ClientHost = m.id, m.instance, m.client.ID, m.client.Host
		d.ProtocolMetadata, d.MemberAssignment = []byte{}, []byte{}
		if g.state == Stable && g.protocol != nil {
			d.ProtocolMetadata = m.metadata(*g.protocol)
			d.MemberAssignment = append(d.MemberAssignment, m.assignment...)
		}
		r.Members = append(r.Members, d)
	}
	return r
}

// List is the group for ListGroups.
func (g *Group) List() kmsg.ListGroupsResponseGroup {
	r := kmsg.NewListGroupsResponseGroup()
	r.Group, r.GroupState, r.GroupType = g.id, g.state.String(), "classic"
	if g.protocolType != nil {
		r.ProtocolType = *g.protocolType
	}
	return r
}
