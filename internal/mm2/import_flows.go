package mm2

import (
	"fmt"
	"strings"
)

// flow writes one flow, if it is enabled.
func (m *importer) flow(from, to string) {
	name := from + "->" + to
	enabled, _ := m.ofFlow(from, to, "enabled")
	if !isTrue(enabled.Value) {
		if _, ok := m.props[enabled.Key]; ok {
			m.tell(KindTranslated, enabled.Key, "there is no flow "+name)
		}
		for _, p := range m.props {
			if strings.HasPrefix(p.Key, name+".") {
				m.tell(KindNotNeeded, p.Key, "the flow "+name+" is not enabled")
			}
		}
		return
	}
	m.tell(KindTranslated, enabled.Key, "the flow "+name)
	f := &flowImport{importer: m, from: from, to: to}
	f.selection()
	f.naming()
	f.say("start: mirrormaker2 # goes on where MirrorMaker 2 stopped")
	f.store()
	f.records()
	f.configs()
	f.groups()
	f.beats()
	if f.paused != "" {
		f.say("paused: true # " + f.paused)
	}
	m.flows = append(m.flows, name)
	m.flowText = append(append(m.flowText, "  - from: "+quote(from), "    to: "+quote(to)), f.lines...)
}

// flowImport is one flow while it is translated.
type flowImport struct {
	*importer
	from, to string
	lines    []string
	paused   string // why the flow must not begin as it is
}

func (f *flowImport) say(line string) { f.lines = append(f.lines, "    "+line) }

func (f *flowImport) get(key string) (Property, bool) { return f.ofFlow(f.from, f.to, key) }

// took notes a key that stands in the flow now.
func (f *flowImport) took(key, where string) { f.tell(KindTranslated, key, "flows."+where) }

// patterns translates a list of names and Java patterns. What cannot be translated is
// left out, and the flow does not begin by itself.
func (f *flowImport) patterns(p Property, into string) []string {
	var all []string
	for _, java := range list(p.Value) {
		re2, err := RE2(java)
		if err != nil {
			f.also(KindToDo, p.Key, fmt.Sprintf("RE2, which kmirror uses, cannot say %s (%v): write it in another way to flows.%s", java, err, into))
			f.paused = "a pattern of " + p.Key + " could not be translated: complete it, then take this line away"
			continue
		}
		all = append(all, re2)
	}
	return all
}

// selection is which topics flow.
func (f *flowImport) selection() {
	topics, given := f.get("topics")
	if !given {
		topics.Value = ".*"
	}
	chosen := f.patterns(topics, "topics")
	if len(chosen) == 0 {
		chosen = []string{"to-be-completed"}
		f.paused = nonEmpty(f.paused, "no topic is selected: complete topics, then take this line away")
	}
	f.say("topics: " + quoteAll(chosen))
	if given {
		f.took(topics.Key, "topics")
	}
	excluded, given := f.get("topics.exclude")
	if !given {
		excluded, given = f.get("topics.blacklist")
	}
	if given {
		f.took(excluded.Key, "exclude_topics")
		if out := f.patterns(excluded, "exclude_topics"); len(out) > 0 {
			f.say("exclude_topics: " + quoteAll(out))
		}
	} else {
		f.say(`exclude_topics: ['.*[\-\.]internal', '.*\.replica', '__.*'] # MirrorMaker 2's default before 4.0`)
		f.also(KindDifferent, "topics.exclude", `MirrorMaker 2's default of before 4.0 was written out; since 4.0 it is mm2.*\.internal, .*\.replica, __.*: if topics called *.internal or *-internal flowed, take that pattern away`)
	}
}

// naming is what topics are called at the target.
func (f *flowImport) naming() {
	policy, given := f.get("replication.policy.class")
	class := policy.Value[strings.LastIndexByte(policy.Value, '.')+1:]
	switch class {
	case "", "DefaultReplicationPolicy":
	case "IdentityReplicationPolicy":
		f.say("naming: identity")
	default:
		f.also(KindToDo, policy.Key, "kmirror knows MirrorMaker 2's Default and Identity policies: say with naming, separator and rename what yours does")
		f.paused = "the names at the target are not settled (" + policy.Key + "): settle them, then take this line away"
	}
	if given {
		f.took(policy.Key, "naming")
	}
	separator, given := f.get("replication.policy.separator")
	if given {
		f.took(separator.Key, "separator")
		if separator.Value != "." {
			f.say("separator: " + quote(separator.Value))
		}
	}
	if internal, ok := f.get("replication.policy.internal.topic.separator.enabled"); ok {
		if !isTrue(internal.Value) && separator.Value != "" && separator.Value != "." {
			f.say(`internal_separator: "."`)
		}
		f.took(internal.Key, "internal_separator")
	}
}

// store is where MirrorMaker 2 kept its positions.
func (f *flowImport) store() {
	var parts []string
	if p, ok := f.first(f.to+".offset.storage.topic", "offset.storage.topic"); ok {
		parts = append(parts, "offsets_topic: "+quote(p.Value))
		f.took(p.Key, "mirrormaker2.offsets_topic")
	}
	if p, ok := f.get("name"); ok {
		parts = append(parts, "connector: "+quote(p.Value))
		f.took(p.Key, "mirrormaker2.connector")
	}
	if len(parts) > 0 {
		f.say("mirrormaker2: {" + strings.Join(parts, ", ") + "}")
	}
}

// records is what happens to them on their way, and how topics are made.
func (f *flowImport) records() {
	if p, ok := f.get("replication.factor"); ok {
		if p.Value != "-1" {
			f.say("replication_factor: " + quoteNumber(p.Value))
		}
		f.took(p.Key, "replication_factor")
	}
	if p, ok := f.first(f.from+".consumer.auto.offset.reset", f.from+"->"+f.to+".consumer.auto.offset.reset", "consumer.auto.offset.reset"); ok {
		switch p.Value {
		case "earliest":
			f.tell(KindNotNeeded, p.Key, "what MirrorMaker 2 has not begun, kmirror begins at its first record")
		default:
			f.tell(KindDifferent, p.Key, "what MirrorMaker 2 has not begun, kmirror begins at its first record: give such topics a rule of their own in start, as {topics: [...], from: latest}, before {from: mirrormaker2}")
		}
	}
	for _, p := range f.props {
		scope, bare := f.split(p.Key)
		if (scope == "" || scope == f.from+"->"+f.to) && (strings.HasPrefix(bare, "transforms") || strings.HasPrefix(bare, "predicates")) {
			f.paused = "MirrorMaker 2 changed records on their way (transforms), and kmirror copies them as they are; see docs/mirrormaker2.md"
		}
	}
}

func quoteNumber(s string) string {
	for _, r := range s {
		if r < '0' || r > '9' {
			return quote(s)
		}
	}
	return s
}

// configs is which topic configs are kept equal.
func (f *flowImport) configs() {
	var parts []string
	if p, ok := f.get("sync.topic.configs.enabled"); ok {
		if !isTrue(p.Value) {
			parts = append(parts, "sync: false")
		}
		f.took(p.Key, "configs.sync")
	}
	p, ok := f.get("config.properties.exclude")
	if !ok {
		p, ok = f.get("config.properties.blacklist")
	}
	if ok {
		parts = append(parts, "exclude: "+quoteAll(f.patterns(p, "configs.exclude")))
		f.took(p.Key, "configs.exclude")
	}
	if len(parts) > 0 {
		f.say("configs: {" + strings.Join(parts, ", ") + "}")
	}
	switch p, ok := f.get("sync.topic.acls.enabled"); {
	case !ok:
		f.also(KindDifferent, p.Key, "kmirror does not copy ACLs, which MirrorMaker 2 did: those that are there stay; give new ones at the target by hand (kafka-acls.sh)")
	case isTrue(p.Value):
		f.also(KindToDo, p.Key, "kmirror does not copy ACLs: those that are there stay; give new ones at the target by hand (kafka-acls.sh)")
	default:
		f.tell(KindNotNeeded, p.Key, "kmirror does not copy ACLs")
	}
}

// groups is which consumer groups are kept at the same record.
func (f *flowImport) groups() {
	if p, ok := f.get("groups"); ok {
		if out := f.patterns(p, "groups"); len(out) > 0 {
			f.say("groups: " + quoteAll(out))
		}
		f.took(p.Key, "groups")
	}
	p, ok := f.get("groups.exclude")
	if !ok {
		p, ok = f.get("groups.blacklist")
	}
	if ok {
		f.say("exclude_groups: " + quoteAll(f.patterns(p, "exclude_groups")))
		f.took(p.Key, "exclude_groups")
	}
	if p, ok := f.get("sync.group.offsets.enabled"); ok && isTrue(p.Value) {
		f.took(p.Key, "group_sync, within a second and at the very record")
	} else {
		f.say("group_sync: {enabled: false} # as in MirrorMaker 2, whose groups are translated by its checkpoints only; true moves them along")
		if ok {
			f.took(p.Key, "group_sync.enabled")
		}
	}
	if p, ok := f.get("emit.checkpoints.enabled"); ok {
		if !isTrue(p.Value) {
			f.say("checkpoints: false")
		}
		f.took(p.Key, "checkpoints")
	}
	location, located := f.get("offset-syncs.topic.location")
	emitted, given := f.get("emit.offset-syncs.enabled")
	if given {
		f.took(emitted.Key, "offset_syncs")
	}
	if located && (!given || isTrue(emitted.Value)) {
		f.say("offset_syncs: " + quote(strings.ToLower(location.Value)) + " # for readers other than kmirror; it translates by its own map")
	}
	if located {
		f.took(location.Key, "offset_syncs")
	}
}

// beats are heartbeats.
func (f *flowImport) beats() {
	emit, emitGiven := f.get("emit.heartbeats.enabled")
	copied, copiedGiven := f.get("heartbeats.replication.enabled")
	off := emitGiven && !isTrue(emit.Value)
	if off {
		f.say("heartbeats: false")
	}
	if emitGiven {
		f.took(emit.Key, "heartbeats")
	}
	if copiedGiven {
		if isTrue(copied.Value) == off {
			f.tell(KindDifferent, copied.Key, "in kmirror heartbeats are written and mirrored, or neither: flows.heartbeats")
		} else {
			f.tell(KindTranslated, copied.Key, "flows.heartbeats")
		}
	}
}
