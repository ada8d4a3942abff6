package topology

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// tree is a configuration as [Diff] compares it.
func (c *Config) tree() *block {
	usual := Default()
	root := &block{hides: func(key string) bool { return c.hides(key) }}
	root.add("instance", c.Instance, "")
	root.add("data_dir", c.DataDir, "")
	root.add("http", c.HTTP, usual.HTTP)
	root.add("buffer", formatSize(c.Buffer), formatSize(usual.Buffer))
	root.lines = append(root.lines, line{key: "log.level", value: c.Log.Level, live: true, hidden: c.hides("log.level")})
	root.add("log.format", c.Log.Format, usual.Log.Format)
	for _, cluster := range c.Clusters {
		path := join("clusters", cluster.Name)
		root.blocks = append(root.blocks, cluster.tree(path, func(key string) bool { return c.hides(under(path, key)) }))
	}
	if c.Coordination.Consul != nil {
		const path = "coordination.consul"
		root.blocks = append(root.blocks, c.Coordination.Consul.tree(path, func(key string) bool { return c.hides(under(path, key)) }))
	}
	for i, flow := range c.Flows {
		path := "flows[" + strconv.Itoa(i) + "]"
		root.blocks = append(root.blocks, flow.tree(func(key string) bool { return c.hides(under(path, key)) }))
	}
	return root
}

// hides reports whether something of what stands at a path was substituted.
func (c *Config) hides(path string) bool {
	for _, veiled := range c.veiled {
		rest, below := strings.CutPrefix(veiled, path)
		if below && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

func (c *Cluster) tree(path string, hides func(string) bool) *block {
	b := &block{path: path, hides: hides}
	if c.Embedded != nil {
		b.add("embedded.nodes", list(c.Embedded.Nodes), "")
		b.add("embedded.advertised", list(c.Embedded.Advertised), list(c.Embedded.Nodes))
		b.add("embedded.fsync", c.Embedded.Fsync, FsyncBatch)
		b.add("embedded.fsync_interval", short(c.Embedded.FsyncInterval), "1s")
		for _, name := range slices.Sorted(maps.Keys(c.Embedded.Settings)) {
			b.add(join("embedded.settings", name), c.Embedded.Settings[name], "")
		}
		return b
	}
	b.add("bootstrap", list(c.Bootstrap), "")
	b.add("client_id", c.ClientID, "kmirror")
	b.addTLS(c.TLS)
	if c.SASL != nil {
		b.add("sasl.mechanism", strings.ToLower(c.SASL.Mechanism), "")
		b.add("sasl.user", c.SASL.User, "")
		b.addSecret("sasl.password", c.SASL.Password)
	}
	return b
}

func (b *block) addTLS(tls *TLS) {
	if tls == nil {
		b.add("tls", "", "")
		return
	}
	b.add("tls", "{}", "")
	b.add("tls.ca", tls.CA, "")
	b.add("tls.cert", tls.Cert, "")
	b.add("tls.key", tls.Key, "")
	b.add("tls.server_name", tls.ServerName, "")
	b.add("tls.insecure_skip_verify", strconv.FormatBool(tls.InsecureSkipVerify), "false")
}

func (b *block) addSecret(key string, secret Secret) {
	b.lines = append(b.lines, line{key: key, value: secret.Reveal(), hidden: true})
}

func (c *Consul) tree(path string, hides func(string) bool) *block {
	b := &block{path: path, hides: hides}
	b.add("address", c.Address, "127.0.0.1:8500")
	b.add("prefix", c.Prefix, "kmirror")
	b.add("datacenter", c.Datacenter, "")
	b.addSecret("token", c.Token)
	b.add("ttl", short(c.TTL), "15s")
	b.addTLS(c.TLS)
	return b
}

func (f *Flow) tree(hides func(string) bool) *block {
	usual := DefaultFlow(f.From, f.To)
	usual.Naming = f.Naming
	usual.settle()
	b := &block{path: "flows[" + f.Name + "]", live: true, hides: hides}
	b.add("topics", list(f.Topics), "")
	b.add("exclude_topics", list(f.ExcludeTopics), "[]")
	b.add("naming", string(f.Naming), string(Prefixed))
	b.add("separator", strconv.Quote(f.Separator), strconv.Quote(usual.Separator))
	b.add("internal_separator", strconv.Quote(f.InternalSeparator), strconv.Quote(f.Separator))
	b.add("rename", f.renameText(), "[]")
	b.add("start", f.startText(), "[]")
	b.add("mirrormaker2.offsets_topic", f.MirrorMaker2.OffsetsTopic, usual.MirrorMaker2.OffsetsTopic)
	b.add("mirrormaker2.connector", plain(f.MirrorMaker2.Connector), plain(usual.MirrorMaker2.Connector))
	factor := ""
	if f.ReplicationFactor > 0 {
		factor = strconv.Itoa(int(f.ReplicationFactor))
	}
	b.add("replication_factor", factor, "")
	b.add("configs.sync", strconv.FormatBool(f.Configs.Sync), "true")
	b.add("configs.exclude", list(f.Configs.Exclude), list(usual.Configs.Exclude))
	b.add("groups", list(f.Groups), list(usual.Groups))
	b.add("exclude_groups", list(f.ExcludeGroups), list(usual.ExcludeGroups))
	b.add("group_sync.enabled", strconv.FormatBool(f.GroupSync.Enabled), "true")
	b.add("group_sync.interval", short(f.GroupSync.Interval), short(usual.GroupSync.Interval))
	b.add("group_sync.deleted_groups", string(f.GroupSync.Deleted), string(usual.GroupSync.Deleted))
	b.add("group_sync.failback", strconv.FormatBool(f.GroupSync.Failback), "false")
	b.add("heartbeats", strconv.FormatBool(f.Heartbeats), "true")
	b.add("checkpoints", strconv.FormatBool(f.Checkpoints), "true")
	b.add("offset_syncs", string(f.OffsetSyncs), string(usual.OffsetSyncs))
	b.add("paused", strconv.FormatBool(f.Pause), "false")
	throttle := ""
	if f.Throttle > 0 {
		throttle = formatSize(f.Throttle)
	}
	b.add("throttle", throttle, "")
	b.add("fence", string(f.Fence), string(usual.Fence))
	b.add("dead_letter_topic", f.DeadLetterTopic, "")
	b.add("filters", f.filterText(), "[]")
	names := usual.Policies.words()
	for i, policy := range f.Policies.words() {
		b.add("policies."+policy[0], policy[1], names[i][1])
	}
	b.add("topic_rules", f.ruleText(), "[]")
	return b
}

// words are the policies by their names in mirror.yaml, in the order of the reference.
func (p Policies) words() [][2]string {
	return [][2]string{
		{"record_too_large", string(p.RecordTooLarge)},
		{"retention_loss", string(p.RetentionLoss)},
		{"source_truncated", string(p.SourceTruncated)},
		{"source_recreated", string(p.SourceRecreated)},
		{"target_deleted", string(p.TargetDeleted)},
		{"target_truncated", string(p.TargetTruncated)},
		{"foreign_writes", string(p.ForeignWrites)},
		{"config_drift", string(p.ConfigDrift)},
		{"topic_deleted", string(p.TopicDeleted)},
		{"unfenced", string(p.Unfenced)},
		{"seam_unverified", string(p.SeamUnverified)},
	}
}

func (f *Flow) startText() string {
	rules := make([]string, 0, len(f.Start))
	for _, rule := range f.Start {
		rules = append(rules, "{topics: "+list(rule.Topics)+", from: "+rule.Start.String()+"}")
	}
	return "[" + strings.Join(rules, ", ") + "]"
}

func (f *Flow) renameText() string {
	rules := make([]string, 0, len(f.Rename))
	for _, rule := range f.Rename {
		rules = append(rules, "{from: "+plain(rule.From)+", to: "+plain(rule.To)+"}")
	}
	return "[" + strings.Join(rules, ", ") + "]"
}

func (f *Flow) filterText() string {
	filters := make([]string, 0, len(f.Filters))
	for _, filter := range f.Filters {
		var drop []string
		if filter.Key != "" {
			drop = append(drop, "key: "+plain(filter.Key))
		}
		var headers []string
		for _, name := range slices.Sorted(maps.Keys(filter.Headers)) {
			headers = append(headers, plain(name)+": "+plain(filter.Headers[name]))
		}
		if len(headers) > 0 {
			drop = append(drop, "header: {"+strings.Join(headers, ", ")+"}")
		}
		filters = append(filters, "{topics: "+list(filter.Topics)+", drop: {"+strings.Join(drop, ", ")+"}}")
	}
	return "[" + strings.Join(filters, ", ") + "]"
}

// ruleText names of each rule what is other than the flow's.
func (f *Flow) ruleText() string {
	flow := f.Policies.words()
	rules := make([]string, 0, len(f.TopicRules))
	for _, rule := range f.TopicRules {
		text := "{topics: " + list(rule.Topics)
		var policies []string
		for i, policy := range rule.Policies.words() {
			if policy != flow[i] {
				policies = append(policies, policy[0]+": "+policy[1])
			}
		}
		if len(policies) > 0 {
			text += ", policies: {" + strings.Join(policies, ", ") + "}"
		}
		if rule.Pause != f.Pause {
			text += ", paused: " + strconv.FormatBool(rule.Pause)
		}
		rules = append(rules, text+"}")
	}
	return "[" + strings.Join(rules, ", ") + "]"
}

// list is a list of texts as YAML.
func list(texts []string) string {
	shown := make([]string, 0, len(texts))
	for _, text := range texts {
		shown = append(shown, plain(text))
	}
	return "[" + strings.Join(shown, ", ") + "]"
}

// plain is a text as YAML, quoted if it needs to be.
func plain(text string) string {
	if text != "" && (onlyTopicChars(text) || text[0] >= 'a' && text[0] <= 'z' && !strings.ContainsAny(text, " ,:[]{}#\"'\\*")) {
		return text
	}
	if !strings.Contains(text, "'") && strings.IndexFunc(text, func(c rune) bool { return c < ' ' }) < 0 {
		return "'" + text + "'"
	}
	return strconv.Quote(text)
}
