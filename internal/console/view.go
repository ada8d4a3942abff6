package console

import (
	"cmp"
	"fmt"
	"html/template"
	"iter"
	"slices"
	"time"

	"kmirror/checkpoint"
	"kmirror/mirror"
)

// How many rows the page shows of each kind and flow, the worst first; the API has all.
const (
	maxTopicRows   = 100
	maxProblemRows = 50
	maxGroupRows   = 100
)

// A tone is how a state looks: a CSS class.
const (
	toneGood = "good"
	toneWarn = "warn"
	toneBad  = "bad"
	toneCalm = "calm"
)

// view is all that the template shows, in words already.
type view struct {
	Style      template.CSS
	Script     template.JS
	Instance   string
	Version    string
	Up         string
	Membership string
	Now        string
	Overall    label
	Refused    string // why the newest configuration file was not taken
	Waiting    []string
	Clusters   []clusterView
	Flows      []flowView
	Incidents  incidentsView
}

type label struct{ Text, Tone string }

type clusterView struct {
	Name, Kind, ID, Error, Tone, Reach string
	Addresses                          []string
	Map                                string   // the size of the offset map in it
	Skipped                            []string // what was passed over in internal topics
}

type flowView struct {
	Name, From, To, Naming, State, Tone, Error          string
	Rate, ByteRate, Lag, LagBytes, LagTime, LagTone     string
	Records, Bytes, TopicCount, GroupCount, GroupStates string
	Loss                                                label // what a failover now would lose
	Fence                                               label
	Throttle, Carried, Paused                           string
	Topics                                              []topicView
	MoreTopics                                          string
	Problems                                            []problemView
	MoreProblems                                        string
	Groups                                              []groupView
	MoreGroups                                          *moreGroups
}

type moreGroups struct{ Count, Flow string }

// String is what the template prints.
func (m *moreGroups) String() string { return m.Count }

type topicView struct {
	Source, Target, Partitions, Records, Rate, ByteRate, Lag, LagBytes, LagTime, LagTone, Error string
	Paused                                                                                      string // why
	Modes                                                                                       []string
}

type problemView struct {
	Topic, Partition, State, Tone, Position, SourceEnd, Error string
}

func newView(answer StatusAnswer, engine Engine, now time.Time) view {
	s := answer.Status
	v := view{Instance: s.Instance, Version: s.Version, Now: now.UTC().Format("2006-01-02 15:04:05 UTC"), Overall: overall(s, engine.Ready())}
	if !s.Started.IsZero() {
		v.Up = spokenDuration(now.Sub(s.Started))
	}
	if len(s.Members) > 1 {
		v.Membership = fmt.Sprintf("one of %d instances", len(s.Members))
		if s.Leading {
			v.Membership += ", leading"
		}
	}
	if c := answer.Config; c != nil {
		v.Waiting = c.Waiting
		if c.Refused != nil {
			v.Refused = spokenDuration(now.Sub(*c.Refused)) + " ago: " + c.Error
		}
	}
	v.Incidents = newIncidentsView(engine.Incidents(0), now)
	for _, c := range s.Clusters {
		v.Clusters = append(v.Clusters, newClusterView(c, s))
	}
	for _, f := range s.Flows {
		list, _ := engine.Groups(f.Name)
		flow := newFlowView(f, list)
		if rpo, ok := losses(s, f.Name, list, now); ok {
			flow.Loss = lossLabel(rpo, now)
		}
		v.Flows = append(v.Flows, flow)
	}
	return v
}

// overall says in a few words whether anybody has to look closer.
func overall(s mirror.Status, ready bool) label {
	lost, troubled, paused := 0, 0, 0
	for _, c := range s.Clusters {
		if !c.Reachable && c.Error != "" {
			lost++
		}
	}
	for _, f := range s.Flows {
		if flowTone(f.State) == toneBad || flowTone(f.State) == toneWarn {
			troubled++
		}
		if f.State == statePaused {
			paused++
		}
	}
	switch {
	case lost > 0:
		return label{plural(lost, "cluster") + " unreachable", toneBad}
	case troubled > 0:
		return label{plural(troubled, "flow") + " in trouble", toneWarn}
	case !ready:
		return label{"starting", toneCalm}
	case len(s.Flows) == 0:
		return label{"serving", toneGood}
	case paused > 0:
		return label{plural(paused, "flow") + " paused", toneCalm}
	default:
		return label{"all is well", toneGood}
	}
}

func newClusterView(c mirror.ClusterStatus, s mirror.Status) clusterView {
	v := clusterView{Name: c.Name, Kind: c.Kind, ID: c.ID, Error: c.Error, Addresses: c.Addresses, Tone: toneGood, Reach: "reachable"}
	switch {
	case c.Reachable:
	case c.Error != "":
		v.Tone, v.Reach = toneBad, "unreachable"
	default:
		v.Tone, v.Reach = toneCalm, "not reached yet"
	}
	for _, m := range s.Maps {
		if m.Cluster == c.Name {
			v.Map = plural(m.Partitions, "partition") + ", " + plural(m.Runs, "run") + ", " + FormatBytes(float64(m.Memory))
		}
	}
	for _, one := range s.Skipped {
		if one.Cluster == c.Name {
			v.Skipped = append(v.Skipped, plural(int(one.Records), "record")+" passed over in "+one.Topic+", corrupt or not ours")
		}
	}
	return v
}

func newFlowView(f mirror.FlowStatus, groups iter.Seq[checkpoint.GroupStatus]) flowView {
	v := flowView{
		Name: f.Name, From: f.From, To: f.To, Naming: f.Naming, State: f.State, Tone: flowTone(f.State), Error: f.Error,
		Rate: FormatRate(f.RecordsPerSecond), ByteRate: FormatByteRate(f.BytesPerSecond),
		Lag: FormatCount(f.LagRecords), LagBytes: FormatLagBytes(mirror.Lag{Bytes: f.LagBytes, BytesEstimated: f.LagBytesEstimated}),
		LagTime: FormatSeconds(f.LagSeconds), LagTone: lagTone(f.LagSeconds),
		Records: FormatCount(int64(f.Records)), Bytes: FormatBytes(float64(f.Bytes)),
		TopicCount: countOf(len(f.Topics)), Fence: fenceLabel(f.Fence),
	}
	if f.Throttle > 0 {
		v.Throttle = "at most " + FormatByteRate(float64(f.Throttle))
	}
	modes, paused := map[string]uint64{}, 0
	for _, t := range f.Topics {
		for mode, n := range t.Modes {
			modes[mode] += n
		}
		if pausedTopic(t) != "" {
			paused++
		}
	}
	v.Carried = listWords(modeList(modes))
	if paused > 0 && f.State != statePaused {
		v.Paused = plural(paused, "topic") + " paused"
	}
	v.Topics, v.MoreTopics = topicViews(f.Topics)
	v.Problems, v.MoreProblems = problemViews(f.Topics)
	answer := groupsAnswer(GroupsQuery{Flow: f.Name, Limit: maxGroupRows}, f, groups)
	v.GroupCount = countOf(answer.Total)
	v.Groups, v.GroupStates = groupViews(answer, f.From, f.To), stateWords(answer.States)
	if more := answer.Total - len(answer.Groups); more > 0 {
		v.MoreGroups = &moreGroups{Count: countOf(more), Flow: f.Name}
	}
	return v
}

func topicViews(topics []mirror.TopicStatus) (shown []topicView, more string) {
	sorted := slices.Clone(topics)
	slices.SortStableFunc(sorted, func(a, b mirror.TopicStatus) int {
		if d := cmp.Compare(b2i(b.Error != ""), b2i(a.Error != "")); d != 0 {
			return d
		}
		if len(topics) > maxTopicRows { // only where some have to be left out does the order of names yield
			if d := cmp.Compare(b.LagRecords, a.LagRecords); d != 0 {
				return d
			}
		}
		return cmp.Compare(a.Source, b.Source)
	})
	sorted, more = firstRows(sorted, maxTopicRows)
	for _, t := range sorted {
		shown = append(shown, topicView{
			Source: t.Source, Target: t.Target, Partitions: countOf(len(t.Partitions)), Records: FormatCount(int64(t.Records)),
			Rate: FormatRate(t.RecordsPerSecond), ByteRate: FormatByteRate(t.BytesPerSecond),
			Lag: FormatCount(t.LagRecords), LagBytes: FormatLagBytes(mirror.Lag{Bytes: t.LagBytes, BytesEstimated: t.LagBytesEstimated}),
			LagTime: FormatSeconds(t.LagSeconds), LagTone: lagTone(t.LagSeconds),
			Modes: modeList(t.Modes), Error: t.Error, Paused: pausedTopic(t),
		})
	}
	return shown, more
}

func problemViews(topics []mirror.TopicStatus) (shown []problemView, more string) {
	var all []problemView
	for _, t := range topics {
		for _, p := range t.Partitions {
			if p.State == statePaused || p.Error == "" && p.State != "stopped" {
				continue
			}
			tone := toneWarn
			if p.State == "stopped" {
				tone = toneBad
			}
			all = append(all, problemView{
				Topic: t.Source, Partition: fmt.Sprint(p.Partition), State: p.State, Tone: tone,
				Position: FormatCount(p.Position), SourceEnd: FormatCount(p.SourceEnd), Error: p.Error,
			})
		}
	}
	slices.SortStableFunc(all, func(a, b problemView) int { return cmp.Compare(b2i(b.Tone == toneBad), b2i(a.Tone == toneBad)) })
	return firstRows(all, maxProblemRows)
}

func firstRows[T any](rows []T, limit int) (shown []T, more string) {
	if len(rows) <= limit {
		return rows, ""
	}
	return rows[:limit], countOf(len(rows) - limit)
}

func flowTone(state string) string {
	switch state {
	case "mirroring":
		return toneGood
	case "degraded":
		return toneWarn
	case "stopped":
		return toneBad
	default:
		return toneCalm
	}
}

// statePaused is a flow or partition that is paused.
const statePaused = "paused"

// pausedTopic says why a topic is paused, empty if it is not.
func pausedTopic(t mirror.TopicStatus) string {
	why := ""
	for _, p := range t.Partitions {
		if p.State != statePaused {
			return ""
		}
		why = cmp.Or(p.Error, statePaused)
	}
	return why
}

// fenceLabel says how a flow keeps dead instances from writing.
func fenceLabel(fence string) label {
	switch fence {
	case "fenced":
		return label{"fenced", toneGood}
	case "":
		return label{}
	default:
		return label{fence + " only", toneCalm}
	}
}

// modeList names the steps of the ladder that were used, the most used first.
func modeList(modes map[string]uint64) []string {
	var names []string
	for name, n := range modes {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(modes[b], modes[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		names[i] = name + " " + FormatCount(int64(modes[name]))
	}
	return names
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
