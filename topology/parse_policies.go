package topology

import (
	"errors"
	"strings"
)

// renameSource remembers where a rename rule's parts stand.
type renameSource struct {
	at, from, to value
	veiled       bool
}

// choose reads one of a few words of a kind.
func choose[T ~string](r *reader, v value, to *T, words ...T) {
	texts := make([]string, 0, len(words))
	for _, word := range words {
		texts = append(texts, string(word))
	}
	word := string(*to)
	if r.choice(v, &word, texts...) {
		*to = T(word)
	}
}

// policies reads policies and topic_rules, when all else of the flow is known,
// and faults what makes no sense together.
func (r *reader) policies(source *flowSource, flow *Flow) {
	given := map[string]value{}
	if source.policies.present() && r.given(source.policies) {
		r.policyMapping(source.policies, &flow.Policies, given)
	}
	r.sensible(flow, flow.Policies, given)
	if !source.rules.present() {
		return
	}
	items, _ := r.items(source.rules)
	for _, item := range items {
		r.topicRule(item, flow)
	}
}

func (r *reader) policyMapping(v value, to *Policies, given map[string]value) {
	note := func(name string, read func(value)) field {
		return field{name, func(v value) {
			given[name] = v
			read(v)
		}}
	}
	r.mapping(v, []field{
		note("record_too_large", func(v value) {
			choose(r, v, &to.RecordTooLarge, TooLargeRaise, TooLargePark, TooLargeDeadLetter)
		}),
		note("retention_loss", func(v value) { choose(r, v, &to.RetentionLoss, LossStop, LossContinue) }),
		note("source_truncated", func(v value) { choose(r, v, &to.SourceTruncated, LossStop, LossContinue) }),
		note("source_recreated", func(v value) { choose(r, v, &to.SourceRecreated, RecreatedStop, RecreatedBegin) }),
		note("target_deleted", func(v value) { choose(r, v, &to.TargetDeleted, TargetGoneRecreate, TargetGoneStop) }),
		note("target_truncated", func(v value) { choose(r, v, &to.TargetTruncated, TargetLostRemirror, TargetLostStop) }),
		note("foreign_writes", func(v value) { choose(r, v, &to.ForeignWrites, ForeignReport, ForeignStop, ForeignIgnore) }),
		note("config_drift", func(v value) { choose(r, v, &to.ConfigDrift, DriftRepair, DriftReport) }),
		note("topic_deleted", func(v value) { choose(r, v, &to.TopicDeleted, DeletedKeep, DeletedDelete) }),
		note("unfenced", func(v value) { choose(r, v, &to.Unfenced, UnfencedWait, UnfencedContinue) }),
		note("seam_unverified", func(v value) { choose(r, v, &to.SeamUnverified, LossStop, LossContinue) }),
	}, map[string]string{
		"too_large": "record_too_large", "message_too_large": "record_too_large", "retention": "retention_loss", "truncated": "source_truncated", "recreated": "source_recreated",
		"unclean_election": "source_truncated", "drift": "config_drift", "deleted": "topic_deleted", "source_deleted": "topic_deleted", "fence": "unfenced", "seam": "seam_unverified",
	})
}

func (r *reader) topicRule(v value, flow *Flow) {
	if !r.given(v) {
		return
	}
	before := len(r.faults)
	rule := TopicRule{Policies: flow.Policies, Pause: flow.Pause}
	var topics, policies, paused value
	keep := func(to *value) func(value) { return func(v value) { *to = v } }
	if !r.mapping(v, []field{{"topics", keep(&topics)}, {"policies", keep(&policies)}, {"paused", keep(&paused)}},
		map[string]string{"topic": "topics", "pause": "paused", "policy": "policies"}) {
		return
	}
	switch {
	case !topics.present():
		r.fault(v, `add topics: with patterns of the topics that it is about`, "does not say for which topics it holds")
	case r.patterns(topics, &rule.Topics) && len(rule.Topics) == 0:
		r.fault(topics, "name some, or remove the rule", "is for no topic")
	}
	if !policies.present() && !paused.present() && len(r.faults) == before {
		r.fault(v, "add policies: or paused:, or remove the rule", "changes nothing")
	}
	given := map[string]value{}
	if policies.present() && r.given(policies) {
		r.policyMapping(policies, &rule.Policies, given)
	}
	if paused.present() {
		r.boolean(paused, &rule.Pause)
	}
	r.sensible(flow, rule.Policies, given)
	flow.TopicRules = append(flow.TopicRules, rule)
}

// sensible faults policies that were given and mean nothing beside the rest, or harm.
func (r *reader) sensible(flow *Flow, policies Policies, given map[string]value) {
	if v, ok := given["unfenced"]; ok && flow.Fence == FenceDetect {
		r.fault(v, "remove it, or fence: detect", "says what to do when a fence fails, but the flow has fence: detect and writes none")
	}
	if v, ok := given["config_drift"]; ok && !flow.Configs.Sync {
		r.fault(v, "remove it, or configs: {sync: false}", "says what to do about other configs, but the flow has configs: {sync: false} and compares none")
	}
	if v, ok := given["foreign_writes"]; ok || given["topic_deleted"].present() {
		if !ok {
			v = given["topic_deleted"]
		}
		ignored := policies.ForeignWrites == ForeignIgnore || policies.ForeignWrites == "" && flow.Naming == Identity
		if policies.TopicDeleted == DeletedDelete && ignored {
			r.fault(v, "say foreign_writes: report or stop if the target topic is the flow's alone, else topic_deleted: keep",
				"would delete at the target what others wrote there: topic_deleted: delete with foreign_writes: ignore")
		}
	}
}

// topicName reads the name of a topic that kmirror may make.
func (r *reader) topicName(v value, to *string) {
	s, ok := r.text(v)
	switch {
	case !ok:
	case !LegalTopic(s.text):
		r.fault(v, "use 1 to 249 letters, digits, dots, underscores, hyphens", "%s is no name for a topic", s.shown)
	case InternalTopic(s.text, "."):
		r.fault(v, "choose another", "%s is a name of Kafka's, MirrorMaker 2's or kmirror's own", s.shown)
	default:
		*to = s.text
	}
}

func (r *reader) filters(v value, to *[]Filter) {
	items, _ := r.items(v)
	for _, item := range items {
		if !r.given(item) {
			continue
		}
		filter := Filter{Topics: []string{".*"}}
		var drop value
		ok := r.mapping(item, []field{
			{"topics", func(v value) { r.patterns(v, &filter.Topics) }},
			{"drop", func(v value) { drop = v }},
		}, map[string]string{"topic": "topics", "exclude": "drop", "key": "drop.key", "header": "drop.header", "headers": "drop.header"})
		switch {
		case !ok:
		case !drop.present():
			r.fault(item, "add drop: {key: PATTERN} or drop: {header: {NAME: PATTERN}}", "says not which records to leave out")
		case !r.given(drop):
		default:
			r.drop(drop, &filter)
			*to = append(*to, filter)
		}
	}
}

func (r *reader) drop(v value, to *Filter) {
	before := len(r.faults)
	ok := r.mapping(v, []field{
		{"key", func(v value) { r.pattern(v, "the whole key", &to.Key) }},
		{"header", func(v value) {
			if !r.given(v) {
				return
			}
			entries, _ := r.entries(v)
			to.Headers = make(map[string]string, len(entries))
			for _, e := range entries {
				pattern := ""
				r.pattern(e.value, "the header's whole value", &pattern)
				to.Headers[e.key] = pattern
			}
		}},
	}, map[string]string{"headers": "header", "keys": "key"})
	if ok && len(r.faults) == before && to.Key == "" && len(to.Headers) == 0 {
		r.fault(v, "add key: PATTERN or header: {NAME: PATTERN}", "would leave out every record")
	}
}

// pattern reads one regular expression that must match the whole of something.
func (r *reader) pattern(v value, what string, to *string) {
	s, ok := r.text(v)
	if !ok {
		return
	}
	switch {
	case s.text == "":
		r.fault(v, `write ".*" for everything`, "is an empty pattern")
		return
	case len(s.text) > maxPattern:
		r.fault(v, "make it shorter", "is a pattern of more than %d bytes", maxPattern)
		return
	}
	if _, err := compilePattern(s.text); err != nil {
		remedy := "correct the RE2 expression; it must match " + what
		if strings.HasPrefix(s.text, "*") {
			remedy = `write ".*" where a shell would write "*"`
		}
		if s.substituted {
			r.fault(v, remedy, "%s is not a regular expression", s.shown)
		} else {
			r.fault(v, remedy, "%s is not a regular expression: %s", s.shown, regexpReason(err))
		}
		return
	}
	*to = s.text
}

func (r *reader) rename(v value, source *flowSource, to *[]RenameRule) {
	items, _ := r.items(v)
	for _, item := range items {
		if !r.given(item) {
			continue
		}
		substituted := r.substituted
		var rule RenameRule
		at := renameSource{at: item}
		ok := r.mapping(item, []field{
			{"from", func(v value) {
				at.from = v
				r.pattern(v, "the whole name", &rule.From)
			}},
			{"to", func(v value) {
				at.to = v
				r.name(v, &rule.To)
			}},
		}, map[string]string{"topic": "from", "topics": "from", "pattern": "from", "name": "to", "replacement": "to"})
		at.veiled = r.substituted > substituted
		switch {
		case !ok:
		case !at.from.present() || !at.to.present():
			r.fault(item, `add both from: and to:, as in {from: "orders-(.*)", to: "sales-$1"}`, "does not say what is called what")
		case rule.From != "" && rule.To != "":
			*to = append(*to, rule)
			source.renames = append(source.renames, at)
		}
	}
}

// renames faults rules that lead nowhere or not back.
func (r *reader) renames(source *flowSource, flow *Flow) {
	_, listed := flow.plainNames()
	for i := range flow.Rename {
		err := flow.Rename[i].compile()
		if err == nil && !listed {
			err = flow.Rename[i].invert()
		}
		wrong, ok := errors.AsType[*renameError](err)
		if !ok {
			continue
		}
		v := source.renames[i].from
		if wrong.inTo {
			v = source.renames[i].to
		}
		r.fault(v, wrong.remedy, "%s", wrong.problem)
	}
}
