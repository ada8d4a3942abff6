package console

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"

	"kmirror/checkpoint"
	"kmirror/mirror"
)

// MaxGroups is how many groups one answer of the API has at most.
const MaxGroups = 10_000

// GroupsAnswer is the body of /api/v1/groups: where the groups of one flow stand on both sides.
type GroupsAnswer struct {
	Flow string `json:"flow"`
	// Total counts the groups that match, States those in each state; Groups holds
	// all of them by name or, if there are more than the limit, the gravest.
	Total  int            `json:"total"`
	States map[string]int `json:"states"`
	Groups []Group        `json:"groups"`
}

// Group is one consumer group of a flow. Sums leave out what is not known, and
// are -1 when nothing is.
type Group struct {
	Group string `json:"group"`
	// State is that of the partition that is worst off: one of "in-step",
	// "waiting", "behind", "returning", "deleted-at-source", "active-at-target",
	// "active-at-source", "diverged", "error".
	State         string `json:"state"`
	Error         string `json:"error,omitempty"`
	SourceMembers bool   `json:"source_members"` // it is known to have members there
	TargetMembers bool   `json:"target_members"`
	// PartitionCount counts its partitions, Approximate those of which the place
	// on the other side is not exact.
	PartitionCount int `json:"partition_count"`
	Approximate    int `json:"approximate,omitempty"`
	// Behind counts the offsets by which the target's group is still to be moved.
	Behind int64 `json:"behind"`
	// Shortfall counts the source records that it has read and that are not
	// mirrored yet.
	Shortfall int64 `json:"shortfall"`
	GroupLag

	Partitions []GroupPartition `json:"partitions,omitempty"`
}

// GroupLag is how far a group is from the ends on both sides; -1: not known.
type GroupLag struct {
	SourceLag int64 `json:"source_lag"`
	TargetLag int64 `json:"target_lag"`
	// The seconds are the age of the next record to be read, about.
	SourceLagSeconds float64 `json:"source_lag_seconds"`
	TargetLagSeconds float64 `json:"target_lag_seconds"`
}

// GroupPartition is one committed offset and its counterpart; -1 means unknown.
type GroupPartition struct {
	Topic       string `json:"topic"`
	TargetTopic string `json:"target_topic"`
	Partition   int32  `json:"partition"`
	State       string `json:"state"`
	Error       string `json:"error,omitempty"`
	// SourceOffset is what the group committed at the source.
	SourceOffset int64 `json:"source_offset"`
	// Translated is the same place at the target, TargetOffset what is committed there.
	Translated   int64 `json:"translated"`
	TargetOffset int64 `json:"target_offset"`
	// Back is where TargetOffset is at the source.
	Back int64 `json:"back"`
	// Shortfall counts the source records before SourceOffset that are not mirrored yet.
	Shortfall int64 `json:"shortfall"`
	// Approximate says that Translated is not the very next record: nothing is
	// skipped, and at most Slack offsets are read again (0: not known how many).
	Approximate bool  `json:"approximate,omitempty"`
	Slack       int64 `json:"slack,omitempty"`
	GroupLag
}

func unknownGroupLag() GroupLag {
	return GroupLag{SourceLag: -1, TargetLag: -1, SourceLagSeconds: -1, TargetLagSeconds: -1}
}

// NewGroup puts how a group stands into the API's words, without lags.
func NewGroup(g checkpoint.GroupStatus) Group {
	group := Group{
		Group: g.Group, State: g.State, Error: g.Error, SourceMembers: g.SourceMembers, TargetMembers: g.TargetMembers,
		GroupLag: unknownGroupLag(), Partitions: make([]GroupPartition, 0, len(g.Partitions)),
	}
	for _, p := range g.Partitions {
		if p.Slack == math.MaxInt64 {
			p.Slack = 0
		}
		group.Partitions = append(group.Partitions, GroupPartition{
			Topic: p.Topic, TargetTopic: p.TargetTopic, Partition: p.Partition, State: p.State, Error: p.Error,
			SourceOffset: p.SourceOffset, Translated: p.Translated, TargetOffset: p.TargetOffset, Back: p.Back, Shortfall: p.Shortfall,
			Approximate: p.Translated >= 0 && !p.Exact && p.Shortfall <= 0, Slack: p.Slack, GroupLag: unknownGroupLag(),
		})
	}
	group.Sum()
	return group
}

// Sum adds its partitions up.
func (g *Group) Sum() {
	g.PartitionCount, g.Approximate, g.Behind, g.Shortfall, g.GroupLag = len(g.Partitions), 0, 0, 0, unknownGroupLag()
	for i := range g.Partitions {
		p := &g.Partitions[i]
		if p.Approximate {
			g.Approximate++
		}
		g.Behind = mirror.AddUp(g.Behind, p.Behind())
		g.Shortfall = mirror.AddUp(g.Shortfall, max(0, p.Shortfall))
		for _, sum := range []struct {
			to  *int64
			add int64
		}{{&g.SourceLag, p.SourceLag}, {&g.TargetLag, p.TargetLag}} {
			if sum.add >= 0 {
				*sum.to = mirror.AddUp(max(0, *sum.to), sum.add)
			}
		}
		g.SourceLagSeconds = max(g.SourceLagSeconds, p.SourceLagSeconds)
		g.TargetLagSeconds = max(g.TargetLagSeconds, p.TargetLagSeconds)
	}
}

// Behind counts the offsets by which the target's group is to be moved, in the
// states in which it is.
func (p *GroupPartition) Behind() int64 {
	if p.Translated < 0 || p.State != string(checkpoint.Behind) {
		return 0
	}
	return max(1, p.Translated-max(0, p.TargetOffset))
}

// Worst is the partition that gives a group its state; nil if it has none.
func (g *Group) Worst() *GroupPartition {
	var worst *GroupPartition
	for i := range g.Partitions {
		p := &g.Partitions[i]
		if worst == nil || checkpoint.Gravity(p.State) > checkpoint.Gravity(worst.State) {
			worst = p
		}
	}
	return worst
}

// ByGravity orders groups: the worst off first, then by name.
func ByGravity(a, b Group) int {
	return cmp.Or(
		cmp.Compare(checkpoint.Gravity(b.State), checkpoint.Gravity(a.State)),
		cmp.Compare(mirror.AddUp(b.Behind, b.Shortfall), mirror.AddUp(a.Behind, a.Shortfall)),
		cmp.Compare(a.Group, b.Group))
}

// GroupsQuery says which groups are meant. What is empty asks for all.
type GroupsQuery struct {
	Flow  string
	Group string         // one of them
	Match *regexp.Regexp // names, as a whole
	State string
	Limit int  // the gravest; 0: MaxGroups
	Brief bool // without their partitions
}

func (q GroupsQuery) values() url.Values {
	v := url.Values{"flow": {q.Flow}}
	if q.Group != "" {
		v.Set("group", q.Group)
	}
	if q.Match != nil {
		v.Set("match", q.Match.String())
	}
	if q.State != "" {
		v.Set("state", q.State)
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Brief {
		v.Set("partitions", "false")
	}
	return v
}

// parseGroupsQuery is the inverse of values.
func parseGroupsQuery(v url.Values) (GroupsQuery, error) {
	q := GroupsQuery{Flow: v.Get("flow"), Group: v.Get("group"), State: v.Get("state")}
	for key := range v {
		switch text := v.Get(key); key {
		case "flow", "group", "state":
		case "match":
			match, err := MatchNames(text)
			if err != nil {
				return q, err
			}
			q.Match = match
		case "limit":
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 || n > MaxGroups {
				return q, fmt.Errorf("limit=%q is no number from 1 to %d", text, MaxGroups)
			}
			q.Limit = n
		case "partitions":
			partitions, err := yesOrNo(key, text)
			if err != nil {
				return q, err
			}
			q.Brief = !partitions
		default:
			return q, fmt.Errorf("unknown parameter %q; there are flow, group, match, state, limit, partitions", key)
		}
	}
	return q, nil
}

func yesOrNo(key, text string) (yes bool, err error) {
	if text != "true" && text != "false" {
		return false, fmt.Errorf("%s=%q is neither true nor false", key, text)
	}
	return text == "true", nil
}

// MatchNames compiles a pattern for whole names.
func MatchNames(pattern string) (*regexp.Regexp, error) {
	match, err := regexp.Compile(`^(?:` + pattern + `)$`)
	if err != nil {
		return nil, fmt.Errorf("match=%q is no pattern: %w", pattern, err)
	}
	return match, nil
}

// Wants says whether a group is meant, by its name.
func (q GroupsQuery) Wants(group string) bool {
	return (q.Group == "" || q.Group == group) && (q.Match == nil || q.Match.MatchString(group))
}

// Collect makes an answer from groups that come one after the other.
type Collect struct {
	query  GroupsQuery
	answer GroupsAnswer
	sorted bool // the gravest are kept, in order
}

// NewCollect begins an answer.
func NewCollect(q GroupsQuery) *Collect {
	return &Collect{query: q, answer: GroupsAnswer{Flow: q.Flow, States: map[string]int{}, Groups: []Group{}}}
}

// Add takes a group in. At most twice the limit of them are in memory.
func (c *Collect) Add(g Group) {
	if c.query.State != "" && g.State != c.query.State {
		return
	}
	c.answer.Total++
	c.answer.States[g.State]++
	if c.query.Brief {
		g.Partitions = nil
	}
	c.answer.Groups = append(c.answer.Groups, g)
	if limit := c.limit(); len(c.answer.Groups) >= 2*limit {
		c.cut(limit)
	}
}

func (c *Collect) limit() int { return cmp.Or(c.query.Limit, MaxGroups) }

func (c *Collect) cut(limit int) {
	if len(c.answer.Groups) <= limit {
		return
	}
	slices.SortFunc(c.answer.Groups, ByGravity)
	clear(c.answer.Groups[limit:])
	c.answer.Groups, c.sorted = c.answer.Groups[:limit], true
}

// Answer ends it.
func (c *Collect) Answer() GroupsAnswer {
	if c.cut(c.limit()); !c.sorted {
		slices.SortFunc(c.answer.Groups, func(a, b Group) int { return cmp.Compare(a.Group, b.Group) })
	}
	return c.answer
}

// place fills in the lags in records, as far as the status of the flow knows
// where the partitions end.
func (g *Group) place(ends map[string][]mirror.PartitionStatus) {
	for i := range g.Partitions {
		p := &g.Partitions[i]
		if known := ends[p.Topic]; p.Partition >= 0 && int(p.Partition) < len(known) {
			end := known[p.Partition]
			p.SourceLag, p.TargetLag = before(p.SourceOffset, end.SourceEnd), before(p.TargetOffset, end.TargetEnd)
		}
	}
	g.Sum()
}

func before(offset, end int64) int64 {
	if offset < 0 || end < 0 {
		return -1
	}
	return max(0, end-offset)
}

func groupsAnswer(q GroupsQuery, f mirror.FlowStatus, list iter.Seq[checkpoint.GroupStatus]) GroupsAnswer {
	ends := make(map[string][]mirror.PartitionStatus, len(f.Topics))
	for _, t := range f.Topics {
		ends[t.Source] = t.Partitions
	}
	all := NewCollect(q)
	if list == nil {
		return all.Answer()
	}
	for g := range list {
		if q.Wants(g.Group) {
			group := NewGroup(g)
			group.place(ends)
			all.Add(group)
		}
	}
	return all.Answer()
}

func groups(w http.ResponseWriter, r *http.Request, engine Engine) {
	q, err := parseGroupsQuery(r.URL.Query())
	if err := mustName(r, q.Flow, err); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	list, ok := engine.Groups(q.Flow)
	if !ok {
		writeError(w, http.StatusNotFound, fmt.Sprintf("no flow %q here", q.Flow))
		return
	}
	f, _, _ := flowOf(engine.Status(), q.Flow)
	writeJSON(w, http.StatusOK, groupsAnswer(q, f, list))
}
