package replica

import (
	"slices"
	"strings"
	"time"

	"kmirror/broker/storage"
)

// ConfigEntry is one setting as DescribeConfigs shows it. No setting of this
// broker is sensitive.
type ConfigEntry struct {
	Name     string
	Value    *string // nil: not set and without default
	Source   Source
	Type     Type
	ReadOnly bool
	Doc      string
	Synonyms []ConfigSynonym // where the value comes from and what stands behind it, the strongest first
}

// ConfigSynonym is one place where the value of a setting could come from.
type ConfigSynonym struct {
	Name   string
	Value  *string
	Source Source
}

// DescribeTopic shows the settings of a topic that overrides these. names nil
// means all; names that do not exist are left out, as Kafka does.
func DescribeTopic(overrides map[string]string, s Settings, names []string) []ConfigEntry {
	var out []ConfigEntry
	for _, d := range topicTable() {
		if names != nil && !slices.Contains(names, d.Name) {
			continue
		}
		e := ConfigEntry{Name: d.Name, Type: d.Type, Doc: d.Doc}
		v, source := s.resolveTopic(&d, overrides)
		e.Value, e.Source = &v, source
		if own, ok := overrides[d.Name]; ok {
			e.Synonyms = append(e.Synonyms, ConfigSynonym{d.Name, &own, FromTopic})
		}
		for _, syn := range d.Synonyms {
			e.Synonyms = append(e.Synonyms, s.synonyms(syn.Name)...)
		}
		if len(d.Synonyms) == 0 {
			e.Synonyms = append(e.Synonyms, ConfigSynonym{d.Name, &d.Default, FromDefault})
		}
		out = append(out, e)
	}
	return out
}

// DescribeBroker shows the settings of a broker. names as with DescribeTopic.
func DescribeBroker(s Settings, names []string) []ConfigEntry {
	var out []ConfigEntry
	for _, d := range brokerTable() {
		if names != nil && !slices.Contains(names, d.Name) {
			continue
		}
		e := ConfigEntry{Name: d.Name, Type: d.Type, Doc: d.Doc, ReadOnly: !d.Dynamic}
		v, source := s.resolve(&d)
		if v != "" || source != FromDefault || d.Type == List {
			e.Value = &v
		}
		e.Source = source
		e.Synonyms = s.synonyms(d.Name)
		for _, syn := range d.Synonyms {
			e.Synonyms = append(e.Synonyms, s.synonyms(syn.Name)...)
		}
		out = append(out, e)
	}
	return out
}

// synonyms are the places where a broker setting has a value.
func (s Settings) synonyms(name string) (out []ConfigSynonym) {
	for _, place := range []struct {
		values map[string]string
		source Source
	}{{s.Broker, FromBroker}, {s.Cluster, FromClusterBroker}, {s.Static, FromStatic}} {
		if v, ok := place.values[name]; ok {
			out = append(out, ConfigSynonym{name, &v, place.source})
		}
	}
	if d := find(brokerTable(), name); d != nil && d.Default != "" {
		out = append(out, ConfigSynonym{name, &d.Default, FromDefault})
	}
	return out
}

// TopicSettings are the settings in force on a topic.
type TopicSettings struct {
	storage.LogConfig
	MinISR int32 // min.insync.replicas
}

// Effective is what holds for a topic that overrides these settings.
func Effective(overrides map[string]string, s Settings) TopicSettings {
	table := topicTable()
	text := func(name string) string {
		v, _ := s.resolveTopic(find(table, name), overrides)
		return v
	}
	number := func(name string) int64 { return parseInt(text(name)) }
	policy := splitList(text("cleanup.policy"))
	return TopicSettings{
		LogConfig: storage.LogConfig{
			SegmentBytes:       int(number("segment.bytes")),
			SegmentMillis:      number("segment.ms"),
			SegmentIndexBytes:  int(number("segment.index.bytes")),
			IndexIntervalBytes: int(number("index.interval.bytes")),
			MaxMessageBytes:    int(number("max.message.bytes")),
			RetentionMillis:    number("retention.ms"),
			RetentionBytes:     number("retention.bytes"),
			Delete:             slices.Contains(policy, "delete"),
			Compact:            slices.Contains(policy, "compact"),
			LogAppendTime:      text("message.timestamp.type") == "LogAppendTime",
			TimestampBeforeMax: number("message.timestamp.before.max.ms"),
			TimestampAfterMax:  number("message.timestamp.after.max.ms"),
			Compression:        strings.ToLower(text("compression.type")),
			FileDeleteDelay:    millis(number("file.delete.delay.ms")),
		},
		MinISR: int32(number("min.insync.replicas")),
	}
}

// millis is a duration of so many milliseconds, the longest there is beyond that.
func millis(n int64) time.Duration {
	const longest = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(n, longest)) * time.Millisecond
}
