package replica

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Type is the type of a setting, with Kafka's number for it (DescribeConfigs).
type Type int8

// The types of settings.
const (
	Boolean Type = 1
	String  Type = 2
	Int     Type = 3
	Long    Type = 5
	Double  Type = 6
	List    Type = 7
)

// String is Kafka's name for the type.
func (t Type) String() string {
	switch t {
	case Boolean:
		return "BOOLEAN"
	case String:
		return "STRING"
	case Int:
		return "INT"
	case Long:
		return "LONG"
	case Double:
		return "DOUBLE"
	default:
		return "LIST"
	}
}

// Definition is one setting.
type Definition struct {
	Name    string
	Type    Type
	Default string
	// Synonyms are the broker settings that stand in for a topic setting (or
	// for a broker setting) that is not set, the first that is set counts.
	Synonyms []Synonym
	Doc      string
	Dynamic  bool    // a broker setting that can be changed while it runs
	min, max float64 // of numbers
	oneOf    []string
	minItems int // of lists
}

// Synonym is another name for a setting; Scale is how many of the setting's
// units one of the synonym's is (3 600 000 for hours where milliseconds count).
type Synonym struct {
	Name  string
	Scale int64
}

// check refuses a value that does not fit the definition. The words are Kafka's.
func (d *Definition) check(value string) error {
	invalid := func(why string) error {
		return fmt.Errorf("Invalid value %s for configuration %s: %s", value, d.Name, why) //nolint:staticcheck // Kafka's words
	}
	if len(value) > maxConfigValue {
		return fmt.Errorf("Invalid value for configuration %s: longer than %d bytes", d.Name, maxConfigValue) //nolint:staticcheck // Kafka's words
	}
	v := strings.TrimSpace(value)
	switch d.Type {
	case Boolean:
		if _, ok := parseBool(v); !ok {
			return invalid("Expected value to be either true or false")
		}
	case Int, Long, Double:
		n, ok := d.number(v)
		if !ok {
			return invalid("Not a number of type " + d.Type.String())
		}
		if n < d.min {
			return invalid("Value must be at least " + formatNumber(d.min))
		}
		if n > d.max {
			return invalid("Value must be no more than " + formatNumber(d.max))
		}
	case String:
		if len(d.oneOf) > 0 && !slices.Contains(d.oneOf, v) {
			return invalid("String must be one of: " + strings.Join(d.oneOf, ", "))
		}
	case List:
		items := splitList(v)
		if len(items) < d.minItems {
			return invalid("must not be empty")
		}
		for _, item := range items {
			if len(d.oneOf) > 0 && !slices.Contains(d.oneOf, item) {
				return invalid("String must be one of: " + strings.Join(d.oneOf, ", "))
			}
		}
	}
	return nil
}

// number reads a number of the setting's type. (A float64 holds every bound
// that is checked.)
func (d *Definition) number(v string) (float64, bool) {
	switch d.Type {
	case Double:
		f, err := strconv.ParseFloat(v, 64)
		return f, err == nil && !math.IsNaN(f)
	case Int:
		n, err := strconv.ParseInt(v, 10, 32)
		return float64(n), err == nil
	default:
		n, err := strconv.ParseInt(v, 10, 64)
		return float64(n), err == nil
	}
}

func formatNumber(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func parseBool(v string) (value, ok bool) {
	switch {
	case strings.EqualFold(v, "true"):
		return true, true
	case strings.EqualFold(v, "false"):
		return false, true
	}
	return false, false
}

// splitList is a list as Kafka reads it: by commas, without blanks.
func splitList(v string) (items []string) {
	if strings.TrimSpace(v) == "" {
		return nil
	}
	for item := range strings.SplitSeq(v, ",") {
		items = append(items, strings.TrimSpace(item))
	}
	return items
}

// Source says where a value comes from, with Kafka's number (DescribeConfigs).
type Source int8

// The sources, the strongest first.
const (
	FromTopic         Source = 1 // DYNAMIC_TOPIC_CONFIG
	FromBroker        Source = 2 // DYNAMIC_BROKER_CONFIG
	FromClusterBroker Source = 3 // DYNAMIC_DEFAULT_BROKER_CONFIG: set for all brokers
	FromStatic        Source = 4 // STATIC_BROKER_CONFIG: the configuration file
	FromDefault       Source = 5 // DEFAULT_CONFIG
)

// Settings are the settings of one broker: the configuration file's and what
// was changed since. It is read, never changed.
type Settings struct {
	Static  map[string]string // from the configuration file
	Cluster map[string]string // changed for all brokers
	Broker  map[string]string // changed for this one
}

// set is the value that was given to a broker setting, under this very name.
func (s Settings) set(name string) (value string, source Source, ok bool) {
	if v, ok := s.Broker[name]; ok {
		return v, FromBroker, true
	}
	if v, ok := s.Cluster[name]; ok {
		return v, FromClusterBroker, true
	}
	v, ok := s.Static[name]
	return v, FromStatic, ok
}

// Get is the broker setting in force, "" for a name that is not known.
func (s Settings) Get(name string) string {
	d := find(brokerTable(), name)
	if d == nil {
		return ""
	}
	v, _ := s.resolve(d)
	return v
}

// Int32 is a broker setting of type INT; 0 for a name that is not known.
func (s Settings) Int32(name string) int32 { return int32(s.Int64(name)) }

// Int64 is a broker setting of type INT or LONG; 0 for a name that is not known.
func (s Settings) Int64(name string) int64 { return parseInt(s.Get(name)) }

// Bool is a broker setting of type BOOLEAN.
func (s Settings) Bool(name string) bool { return strings.EqualFold(s.Get(name), "true") }

func parseInt(v string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64) // was checked when it was set
	return n
}

// resolve is the value of a broker setting in force, by its own name, its
// synonyms or its default.
func (s Settings) resolve(d *Definition) (string, Source) {
	if v, source, ok := s.set(d.Name); ok {
		return strings.TrimSpace(v), source
	}
	for _, syn := range d.Synonyms {
		if v, source, ok := s.set(syn.Name); ok {
			return syn.scaled(v), source
		}
	}
	if d.Default == "" {
		for _, syn := range d.Synonyms {
			if other := find(brokerTable(), syn.Name); other != nil && other.Default != "" {
				return syn.scaled(other.Default), FromDefault
			}
		}
	}
	return d.Default, FromDefault
}

// scaled is a synonym's value in the units of the setting.
func (s Synonym) scaled(v string) string {
	v = strings.TrimSpace(v)
	if s.Scale <= 1 {
		return v
	}
	n := parseInt(v)
	switch {
	case n < 0: // "no limit" is -1 in every unit
		return strconv.FormatInt(n, 10)
	case n > math.MaxInt64/s.Scale:
		return strconv.FormatInt(math.MaxInt64, 10)
	}
	return strconv.FormatInt(n*s.Scale, 10)
}

// resolveTopic is the value of a topic setting in force.
func (s Settings) resolveTopic(d *Definition, overrides map[string]string) (string, Source) {
	if v, ok := overrides[d.Name]; ok {
		return strings.TrimSpace(v), FromTopic
	}
	for _, syn := range d.Synonyms {
		if v, source, ok := s.set(syn.Name); ok {
			return syn.scaled(v), source
		}
	}
	return d.Default, FromDefault
}

// The tables, built once and read only.
//
//nolint:gochecknoglobals // immutable once they are built
var (
	topicTable  = sync.OnceValue(TopicConfigs)
	brokerTable = sync.OnceValue(BrokerConfigs)
)

func find(table []Definition, name string) *Definition {
	for i := range table {
		if table[i].Name == name {
			return &table[i]
		}
	}
	return nil
}
