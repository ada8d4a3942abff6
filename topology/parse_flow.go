package topology

import (
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// flowSource remembers where a flow's parts stand, for the proofs.
type flowSource struct {
	flow                               *Flow
	at                                 value
	from, to                           value
	naming                             value // the separator if it is given, else naming, else the flow
	policies, rules, fence, deadLetter value
	mm2                                value
	renames                            []renameSource
	sound                              bool // nothing is wrong with it so far
	veiled                             bool // a substituted value is in it, so that no example may be shown
}

func (r *reader) flows(v value, config *Config, known map[string]*clusterSource) {
	if !v.present() || isNull(v.node) {
		return
	}
	items, ok := r.items(v)
	if !ok {
		return
	}
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	sources := make([]*flowSource, 0, len(items))
	for _, item := range items {
		before := len(r.faults)
		source := r.flow(item)
		if source.flow == nil {
			continue
		}
		r.ends(source, known, names)
		source.sound = len(r.faults) == before
		sources = append(sources, source)
	}
	all := make([]*Flow, 0, len(sources))
	for _, source := range sources {
		all = append(all, source.flow)
	}
	for _, source := range sources {
		if !source.sound {
			continue
		}
		if err := source.flow.compile(names, all); err != nil {
			r.fault(source.at, clearer, "its patterns are too large together")
			source.sound = false
		}
		config.Flows = append(config.Flows, source.flow)
	}
	r.prove(sources, names)
}

func (r *reader) flow(v value) *flowSource {
	source := &flowSource{at: v, naming: v}
	substituted := r.substituted
	defer func() { source.veiled = r.substituted > substituted }()
	if !r.given(v) {
		return source
	}
	flow := DefaultFlow("", "")
	var start value
	keep := func(to *value) func(value) { return func(v value) { *to = v } }
	ok := r.mapping(v, []field{
		{"from", func(v value) {
			source.from = v
			r.name(v, &flow.From)
		}},
		{"to", func(v value) {
			source.to = v
			r.name(v, &flow.To)
		}},
		{"topics", func(v value) {
			if r.patterns(v, &flow.Topics) && len(flow.Topics) == 0 {
				r.fault(v, `name some, or write [".*"] for all; remove the flow if it shall mirror nothing`, "selects no topic")
			}
		}},
		{"exclude_topics", func(v value) { r.patterns(v, &flow.ExcludeTopics) }},
		{"groups", func(v value) { r.patterns(v, &flow.Groups) }},
		{"exclude_groups", func(v value) { r.patterns(v, &flow.ExcludeGroups) }},
		{"naming", func(v value) {
			if source.naming.node == source.at.node {
				source.naming = v
			}
			word := string(flow.Naming)
			if r.choice(v, &word, string(Prefixed), string(Identity)) {
				flow.Naming = Naming(word)
			}
		}},
		{"separator", func(v value) {
			source.naming = v
			r.separator(v, &flow.Separator)
		}},
		{"internal_separator", func(v value) { r.separator(v, &flow.InternalSeparator) }},
		{"start", keep(&start)},
		{"mirrormaker2", func(v value) {
			source.mm2 = v
			r.mirrorMaker2(v, &flow.MirrorMaker2)
		}},
		{"replication_factor", func(v value) {
			n := int64(flow.ReplicationFactor)
			r.integer(v, 1, 1000, &n)
			flow.ReplicationFactor = int16(n)
		}},
		{"configs", func(v value) { r.configs(v, &flow.Configs) }},
		{"group_sync", func(v value) { r.groupSync(v, &flow.GroupSync) }},
		{"heartbeats", func(v value) { r.boolean(v, &flow.Heartbeats) }},
		{"checkpoints", func(v value) { r.boolean(v, &flow.Checkpoints) }},
		{"offset_syncs", func(v value) { choose(r, v, &flow.OffsetSyncs, OffsetSyncsOff, OffsetSyncsSource, OffsetSyncsTarget) }},
		{"policies", keep(&source.policies)},
		{"topic_rules", keep(&source.rules)},
		{"paused", func(v value) { r.boolean(v, &flow.Pause) }},
		{"fence", func(v value) {
			source.fence = v
			choose(r, v, &flow.Fence, FenceAuto, FenceDetect)
		}},
		{"throttle", func(v value) { r.size(v, 1<<10, 1<<40, &flow.Throttle) }},
		{"dead_letter_topic", func(v value) {
			source.deadLetter = v
			r.topicName(v, &flow.DeadLetterTopic)
		}},
		{"filters", func(v value) { r.filters(v, &flow.Filters) }},
		{"rename", func(v value) { r.rename(v, source, &flow.Rename) }},
	}, map[string]string{
		"source": "from", "target": "to", "destination": "to", "topic": "topics", "topics.exclude": "exclude_topics", "topics_exclude": "exclude_topics",
		"group": "groups", "groups.exclude": "exclude_groups", "groups_exclude": "exclude_groups", "exclude": "exclude_topics", "policy": "naming", "prefix": "naming",
		"replication.factor": "replication_factor", "offset": "start", "offsets": "group_sync", "sync_groups": "group_sync", "config": "configs", "name": "from and to",
		"pause": "paused", "rate": "throttle", "limit": "throttle", "quota": "throttle", "filter": "filters", "renames": "rename", "dead_letter": "dead_letter_topic",
		"dlq": "dead_letter_topic", "mm2": "mirrormaker2", "offset_sync": "offset_syncs", "offset-syncs": "offset_syncs", "mirrormaker": "mirrormaker2", "rules": "topic_rules", "topic_policies": "topic_rules", "fencing": "fence", "record_too_large": "policies.record_too_large",
	})
	if !ok {
		return source
	}
	if start.present() {
		r.start(start, &flow.Start)
	}
	if source.mm2.present() && !flow.StartsFromMM2() {
		r.fault(source.mm2, "add start: mirrormaker2, or remove it", "is for topics that begin where MirrorMaker 2 stopped, and none does")
	}
	r.policies(source, &flow)
	r.renames(source, &flow)
	flow.Name = flow.From + "->" + flow.To
	source.flow = &flow
	return source
}

func (r *reader) separator(v value, to *string) {
	s, ok := r.text(v)
	if ok && (s.text == "" || len(s.text) > 16 || !onlyTopicChars(s.text)) {
		r.fault(v, "use 1 to 16 characters that a topic name may have: letters, digits, dots, underscores, hyphens", "%s is no separator", s.shown)
		return
	}
	*to = s.text
}

func (r *reader) configs(v value, to *ConfigSync) {
	if r.given(v) {
		r.mapping(v, []field{
			{"sync", func(v value) { r.boolean(v, &to.Sync) }},
			{"exclude", func(v value) { r.patterns(v, &to.Exclude) }},
		}, map[string]string{"enabled": "sync"})
	}
}

func (r *reader) groupSync(v value, to *GroupSync) {
	if !r.given(v) {
		return
	}
	var deleted, failback value
	r.mapping(v, []field{
		{"enabled", func(v value) { r.boolean(v, &to.Enabled) }},
		{"interval", func(v value) { r.duration(v, 100*time.Millisecond, time.Hour, &to.Interval) }},
		{"deleted_groups", func(v value) {
			deleted = v
			choose(r, v, &to.Deleted, GroupDeletedKeep, GroupDeletedDelete)
		}},
		{"failback", func(v value) {
			failback = v
			r.boolean(v, &to.Failback)
		}},
	}, map[string]string{"sync": "enabled", "deleted": "deleted_groups", "group_deleted": "deleted_groups", "fail_back": "failback"})
	const remedy, problem = "remove it, or enabled: false", "says what to do with groups, but enabled: false leaves them alone"
	if deleted.present() && !to.Enabled && to.Deleted == GroupDeletedDelete {
		r.fault(deleted, remedy, problem)
	}
	if failback.present() && !to.Enabled && to.Failback {
		r.fault(failback, remedy, problem)
	}
}

func (r *reader) mirrorMaker2(v value, to *MirrorMaker2Store) {
	if r.given(v) {
		r.mapping(v, []field{
			{"offsets_topic", func(v value) {
				s, ok := r.text(v)
				if ok && !LegalTopic(s.text) {
					r.fault(v, "use 1 to 249 letters, digits, dots, underscores, hyphens", "%s is no name for a topic", s.shown)
					return
				}
				to.OffsetsTopic = s.text
			}},
			{"connector", func(v value) { r.name(v, &to.Connector) }},
		}, map[string]string{"topic": "offsets_topic", "offsets": "offsets_topic", "name": "connector", "offset.storage.topic": "offsets_topic"})
	}
}

// start is one place for all topics, or a list of rules.
func (r *reader) start(v value, to *[]StartRule) {
	if v.node.Kind != yaml.SequenceNode {
		var start Start
		if r.place(v, &start) {
			*to = []StartRule{{Topics: []string{".*"}, Start: start}}
		}
		return
	}
	items, _ := r.items(v)
	for _, item := range items {
		if !r.given(item) {
			continue
		}
		rule := StartRule{Topics: []string{".*"}}
		var from value
		ok := r.mapping(item, []field{
			{"topics", func(v value) { r.patterns(v, &rule.Topics) }},
			{"from", func(v value) { from = v }},
		}, map[string]string{"topic": "topics", "start": "from", "at": "from"})
		switch {
		case !ok:
		case !from.present():
			r.fault(item, "add from: earliest, latest, mirrormaker2 or a time", "says not where to start")
		case r.place(from, &rule.Start):
			*to = append(*to, rule)
		}
	}
}

// place reads earliest, latest, mirrormaker2 or a time as in RFC 3339 (or a date, midnight UTC).
func (r *reader) place(v value, to *Start) bool {
	s, ok := r.scalar(v)
	if !ok {
		return false
	}
	switch s.text {
	case "earliest":
		*to = Start{Kind: Earliest}
		return true
	case "latest":
		*to = Start{Kind: Latest}
		return true
	case "mirrormaker2":
		*to = Start{Kind: MirrorMaker2}
		return true
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if at, err := time.Parse(layout, s.text); err == nil && at.UnixMilli() >= 0 {
			*to = Start{Kind: Timestamp, Millis: at.UnixMilli()}
			return true
		}
	}
	r.fault(v, "write earliest, latest, mirrormaker2, or a time since 1970 with its zone, as in 2026-01-31T12:00:00Z", "%s is no place to start", s.shown)
	return false
}

// ends checks the two clusters of a flow, and that names map back.
func (r *reader) ends(source *flowSource, known map[string]*clusterSource, names []string) {
	flow := source.flow
	for _, end := range []struct {
		key, name string
		at        value
	}{{"from", flow.From, source.from}, {"to", flow.To, source.to}} {
		switch {
		case !end.at.present():
			r.fault(source.at, "add "+end.key+": with the name of a cluster", "does not say %s which cluster", end.key)
		case end.name == "": // a fault already
		case known[end.name] == nil:
			remedy := "clusters are " + either(names)
			if near := nearest(end.name, names); near != "" {
				remedy = "did you mean " + near + "?"
			} else if len(names) == 0 {
				remedy = "add it to clusters"
			}
			r.fault(end.at, remedy, "there is no cluster %q", end.at.node.Value)
		}
	}
	if flow.From != "" && flow.From == flow.To {
		r.fault(source.to, "name another cluster", "cluster %q cannot be mirrored onto itself", flow.To)
	}
	if flow.From != "" && strings.Index(flow.From+flow.Separator, flow.Separator) != len(flow.From) {
		r.fault(source.naming, "choose a separator that no cluster's name contains, or rename the cluster",
			"the name of cluster %q contains or runs into its separator, so topic names could not be mapped back", flow.From)
	}
	if len(flow.From)+len(flow.Separator) >= MaxTopicName {
		r.fault(source.naming, "choose shorter ones", "cluster name and separator leave no room for a topic name")
	}
}
