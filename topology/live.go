package topology

import (
	"slices"
	"strconv"
	"strings"
)

// Live is the newest configuration that a process which runs this one can have:
// newer's where a change is live, this one's where it needs a restart. The error
// is [Faults] if such a mixture proves nothing: two flows into one topic, a circle.
func (c *Config) Live(newer *Config) (*Config, error) {
	changes := Diff(c, newer)
	moved := movedClusters(changes)
	mixed := *c
	mixed.Log.Level = newer.Log.Level
	mixed.Flows, mixed.veiled = nil, nil
	take := func(from *Config, keep func(*Flow) bool) {
		for i, flow := range from.Flows {
			if !keep(flow) {
				continue
			}
			for _, path := range from.veiled {
				if rest, ok := strings.CutPrefix(path, "flows["+strconv.Itoa(i)+"]"); ok {
					mixed.veiled = append(mixed.veiled, "flows["+strconv.Itoa(len(mixed.Flows))+"]"+rest)
				}
			}
			mixed.Flows = append(mixed.Flows, flow.again())
		}
	}
	for _, path := range c.veiled {
		if !strings.HasPrefix(path, "flows[") {
			mixed.veiled = append(mixed.veiled, path)
		}
	}
	take(newer, func(f *Flow) bool { return !moved[f.From] && !moved[f.To] })
	take(c, func(f *Flow) bool { return (moved[f.From] || moved[f.To]) && newer.Flow(f.Name) != nil })
	return &mixed, mixed.proveAgain()
}

// proveAgain makes flows usable that come from several files, and proves of them
// what [Parse] proves of one.
func (c *Config) proveAgain() error {
	r := &reader{file: c.Path}
	names := make([]string, 0, len(c.Clusters))
	for _, cluster := range c.Clusters {
		names = append(names, cluster.Name)
	}
	slices.Sort(names)
	sources := make([]*flowSource, 0, len(c.Flows))
	for i, flow := range c.Flows {
		at := value{path: "flows[" + flow.Name + "]"}
		if err := flow.compile(names, c.Flows); err != nil {
			r.fault(at, clearer, "its patterns are too large together")
			continue
		}
		sources = append(sources, &flowSource{
			flow: flow, at: at, deadLetter: value{}, sound: true, veiled: c.hides("flows[" + strconv.Itoa(i) + "]"),
			renames: slices.Repeat([]renameSource{{at: at, from: at, to: at}}, len(flow.Rename)),
		})
	}
	r.prove(sources, names)
	if len(r.faults) > 0 {
		return r.faults.sorted()
	}
	return nil
}

// again is a flow that may be compiled anew, beside the one that is in use.
func (f *Flow) again() *Flow {
	fresh := *f
	fresh.Start = slices.Clone(f.Start)
	fresh.TopicRules = slices.Clone(f.TopicRules)
	fresh.Filters = slices.Clone(f.Filters)
	fresh.Rename = slices.Clone(f.Rename)
	fresh.listed = nil
	return &fresh
}
