package console

import (
	"cmp"
	"fmt"
	"html/template"
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
}

type flowView struct {
	Name, From, To, Naming, State, Tone, Error            string
	Rate, ByteRate, Lag, LagTime, LagTone, Records, Bytes string
	TopicCount, GroupCount                                string
	Fence                                                 label
	Throttle, Carried, Paused                             string
	Topics                                                []topicView
	MoreTopics                                            string
	Problems                                              []problemView
	MoreProblems                                          string
	Groups                                                []groupView
	MoreGroups                                            *moreGroups
}

type moreGroups struct{ Count, Flow string }

// String is what the template prints.
func (m *moreGroups) String() string { return m.Count }

type topicView struct {
	Source, Target, Partitions, Records, Rate, ByteRate, Lag, LagTime, LagTone, Error string
	Paused                                                                            string // why
	Modes                                                                             []string
}

type problemView struct {
	Topic, Partition, State, Tone, Position, SourceEnd, Error string
}

type groupView struct {
	Group, State, Tone, Partitions, Behind, Shortfall, Error string
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
		v.Clusters = append(v.Clusters, newClusterView(c))
	}
	for _, f := range s.Flows {
		list, _ := engine.Groups(f.Name)
		v.Flows = append(v.Flows, newFlowView(f, list))
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

func newClusterView(c mirror.ClusterStatus) clusterView {
	v := clusterView{Name: c.Name, Kind: c.Kind, ID: c.ID, Error: c.Error, Addresses: c.Addresses, Tone: toneGood, Reach: "reachable"}
	switch {
	case c.Reachable:
	case c.Error != "":
		v.Tone, v.Reach = toneBad, "unreachable"
	default:
		v.Tone, v.Reach = toneCalm, "not reached yet"
	}
	return v
}

func newFlowView(f mirror.FlowStatus, groups []checkpoint.GroupStatus) flowView {
	v := flowView{
		Name: f.Name, From: f.From, To: f.To, Naming: f.Naming, State: f.State, Tone: flowTone(f.State), Error: f.Error,
		Rate: FormatRate(f.RecordsPerSecond), ByteRate: FormatByteRate(f.BytesPerSecond),
		Lag: FormatCount(f.LagRecords), LagTime: FormatSeconds(f.LagSeconds), LagTone: lagTone(f.LagSeconds),
		Records: FormatCount(int64(f.Records)), Bytes: FormatBytes(float64(f.Bytes)),
		TopicCount: countOf(len(f.Topics)), GroupCount: countOf(len(groups)), Fence: fenceLabel(f.Fence),
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
	shown, more := groupViews(groups)
	v.Groups = shown
	if more != "" {
		v.MoreGroups = &moreGroups{Count: more, Flow: f.Name}
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
			Lag: FormatCount(t.LagRecords), LagTime: FormatSeconds(t.LagSeconds), LagTone: lagTone(t.LagSeconds),
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

func groupViews(groups []checkpoint.GroupStatus) (shown []groupView, more string) {
	sorted := slices.Clone(groups)
	slices.SortStableFunc(sorted, func(a, b checkpoint.GroupStatus) int {
		if d := cmp.Compare(b2i(b.Error != ""), b2i(a.Error != "")); d != 0 {
			return d
		}
		return cmp.Compare(a.Group, b.Group)
	})
	sorted, more = firstRows(sorted, maxGroupRows)
	for _, g := range sorted {
		var behind, shortfall int64
		for _, p := range g.Partitions {
			if p.Translated >= 0 {
				behind += max(0, p.Translated-max(0, p.TargetOffset))
			}
			shortfall += max(0, p.Shortfall)
		}
		shown = append(shown, groupView{
			Group: g.Group, State: g.State, Tone: groupTone(g.State), Partitions: countOf(len(g.Partitions)),
			Behind: FormatCount(behind), Shortfall: FormatCount(shortfall), Error: g.Error,
		})
	}
	return shown, more
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

func groupTone(state string) string {
	switch state {
	case "in-step":
		return toneGood
	case "error":
		return toneWarn
	default:
		return toneCalm
	}
}

// lagTone: seconds behind are the rule that operators have; a minute is worth a look, ten minutes a worry.
func lagTone(seconds float64) string {
	switch {
	case seconds >= 600:
		return toneBad
	case seconds >= 60:
		return toneWarn
	default:
		return ""
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
