package topology

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// setting is a broker config of Kafka that an embedded cluster knows.
type setting struct {
	kind        settingKind
	least, most int64    // of a number
	words       []string // of a word
}

type settingKind int8

const (
	number settingKind = iota
	yesNo
	word
)

// Settings lists the names that an embedded cluster's settings may have: Kafka's
// broker configs, with Kafka's meanings and defaults.
func Settings() []string { return slices.Sorted(maps.Keys(settingRules())) }

func settingRules() map[string]setting {
	const forever = 1<<63 - 1
	return map[string]setting{
		"auto.create.topics.enable":                 {kind: yesNo},
		"compression.type":                          {kind: word, words: []string{"producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"}},
		"connections.max.idle.ms":                   {least: -1, most: forever},
		"delete.topic.enable":                       {kind: yesNo},
		"fetch.max.bytes":                           {least: 1024, most: 1<<31 - 1},
		"group.initial.rebalance.delay.ms":          {least: 0, most: 600_000},
		"group.max.session.timeout.ms":              {least: 1, most: 1<<31 - 1},
		"group.max.size":                            {least: 1, most: 1<<31 - 1},
		"group.min.session.timeout.ms":              {least: 1, most: 1<<31 - 1},
		"log.index.interval.bytes":                  {least: 0, most: 1<<31 - 1},
		"log.message.timestamp.after.max.ms":        {least: 0, most: forever},
		"log.message.timestamp.before.max.ms":       {least: 0, most: forever},
		"log.message.timestamp.type":                {kind: word, words: []string{"CreateTime", "LogAppendTime"}},
		"log.retention.bytes":                       {least: -1, most: forever},
		"log.retention.check.interval.ms":           {least: 1, most: forever},
		"log.retention.hours":                       {least: -1, most: 1<<31 - 1},
		"log.retention.minutes":                     {least: -1, most: 1<<31 - 1},
		"log.retention.ms":                          {least: -1, most: forever},
		"log.roll.hours":                            {least: 1, most: 1<<31 - 1},
		"log.roll.ms":                               {least: 1, most: forever},
		"log.segment.bytes":                         {least: 14, most: 1<<31 - 1},
		"log.segment.delete.delay.ms":               {least: 0, most: forever},
		"max.incremental.fetch.session.cache.slots": {least: 0, most: 1_000_000},
		"message.max.bytes":                         {least: 0, most: 1<<31 - 1},
		"num.partitions":                            {least: 1, most: 10_000},
		"offset.metadata.max.bytes":                 {least: 0, most: 1<<31 - 1},
		"offsets.retention.check.interval.ms":       {least: 1, most: forever},
		"offsets.retention.minutes":                 {least: 1, most: 1<<31 - 1},
		"offsets.topic.num.partitions":              {least: 1, most: 1_000},
		"producer.id.expiration.ms":                 {least: 1, most: 1<<31 - 1},
		"socket.request.max.bytes":                  {least: 1 << 10, most: 1<<31 - 1},
	}
}

// settings reads an embedded cluster's settings. Values may be numbers, words or
// true and false; they are kept as text, as Kafka's are.
func (r *reader) settings(v value, to map[string]string) {
	if isNull(v.node) {
		return
	}
	entries, ok := r.entries(v)
	if !ok {
		return
	}
	rules := settingRules()
	for _, e := range entries {
		rule, known := rules[e.key]
		if !known {
			near := nearest(e.key, slices.Sorted(maps.Keys(rules)))
			remedy := "embedded clusters know " + strings.Join(Settings(), ", ")
			if near != "" {
				remedy = "did you mean " + near + "?"
			}
			r.fault(e.at, remedy, "is no broker config that an embedded cluster knows")
			continue
		}
		s, ok := r.scalar(e.value)
		if !ok {
			continue
		}
		if remedy := rule.remedy(s.text); remedy != "" {
			r.fault(e.value, remedy, "%s is not a value for it", s.shown)
			continue
		}
		to[e.key] = s.text
	}
}

// remedy says what a value should be, empty if it is good.
func (s setting) remedy(text string) string {
	switch s.kind {
	case number:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < s.least || n > s.most {
			return "write a whole number from " + strconv.FormatInt(s.least, 10) + " to " + strconv.FormatInt(s.most, 10)
		}
	case yesNo:
		if text != "true" && text != "false" {
			return "write true or false"
		}
	case word:
		if !slices.Contains(s.words, text) {
			return "write " + either(s.words)
		}
	}
	return ""
}
