package topology

import (
	"cmp"
	"slices"
	"strings"
)

// Change is one thing in which two configurations differ.
type Change struct {
	Path string `json:"path"` // in the YAML tree, flows by their names: flows[east->west].throttle
	Old  string `json:"old"`  // as in mirror.yaml; empty: there was none
	New  string `json:"new"`  // empty: there is none any more
	Live bool   `json:"live"` // a running process takes it; else it needs a restart
}

// String is one line.
func (c Change) String() string {
	line := c.Path + ": "
	switch {
	case c.Old == "":
		line += c.New + " (new)"
	case c.New == "":
		line += c.Old + " (gone)"
	default:
		line += c.Old + " -> " + c.New
	}
	if !c.Live {
		line += " (needs a restart)"
	}
	return line
}

// Diff is what changes when a configuration takes the place of an older one: the
// process, clusters, coordination, flows. What a file leaves out counts as if its
// default stood there; the order of clusters and of flows means nothing. Flows
// and the level of the log are live, all else needs a restart, and so does a flow
// between clusters that do, unless it goes. No secret shows, nor a value that came from the
// environment or from a file beside this one.
func Diff(older, newer *Config) []Change {
	changes := compare(older.tree(), newer.tree())
	moved := movedClusters(changes)
	for i, change := range changes {
		name, isFlow := flowOf(change.Path)
		if f := newer.Flow(name); isFlow && f != nil && (moved[f.From] || moved[f.To]) {
			changes[i].Live = false
		}
	}
	slices.SortStableFunc(changes, func(a, b Change) int { return cmp.Compare(rank(a), rank(b)) })
	return changes
}

// movedClusters are those that a running process does not have, or not so.
func movedClusters(changes []Change) map[string]bool {
	moved := map[string]bool{}
	for _, change := range changes {
		if rest, ok := strings.CutPrefix(change.Path, "clusters"); ok {
			moved[clusterOf(rest)] = true
		}
	}
	return moved
}

// clusterOf is the name in what follows clusters in a path, see join: .east.tls, or [edge.one].tls.
func clusterOf(rest string) string {
	if inner, ok := strings.CutPrefix(rest, "["); ok {
		name, _, _ := strings.Cut(inner, "]")
		return name
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(rest, "."), ".")
	return name
}

// flowOf is the name in flows[east->west].throttle.
func flowOf(path string) (string, bool) {
	rest, ok := strings.CutPrefix(path, "flows[")
	name, _, _ := strings.Cut(rest, "]")
	return name, ok
}

func rank(c Change) int {
	for i, block := range []string{"clusters.", "coordination.", "flows["} {
		if strings.HasPrefix(c.Path, block) {
			return 1 + i
		}
	}
	return 0
}

// compare walks two blocks. A block that only one of them has is one change.
func compare(before, after *block) []Change {
	var changes []Change
	for _, line := range after.lines {
		was, known := before.line(line.key)
		if known && was.value != line.value {
			changes = append(changes, Change{Path: after.at(line.key), Old: was.shown(), New: line.shown(), Live: line.live})
		} else if !known && line.value != "" {
			changes = append(changes, Change{Path: after.at(line.key), New: line.shown(), Live: line.live})
		}
	}
	for _, inner := range after.blocks {
		if was := before.block(inner.path); was != nil {
			changes = append(changes, compare(was, inner)...)
		} else {
			changes = append(changes, Change{Path: inner.path, New: inner.summary(), Live: inner.live})
		}
	}
	for _, inner := range before.blocks {
		if after.block(inner.path) == nil {
			changes = append(changes, Change{Path: inner.path, Old: inner.summary(), Live: inner.live})
		}
	}
	for _, line := range before.lines {
		if _, known := after.line(line.key); !known && line.value != "" {
			changes = append(changes, Change{Path: before.at(line.key), Old: line.shown(), Live: line.live})
		}
	}
	return changes
}

// block is a mapping as values that can be compared and shown.
type block struct {
	path   string
	live   bool // added or removed as a whole
	lines  []line
	blocks []*block
	hides  func(key string) bool
}

// line is one key.
type line struct {
	key, value string // value is as in mirror.yaml; empty: none
	live       bool
	usual      bool // the default
	hidden     bool // value must not show
}

func (l line) shown() string {
	if l.hidden && l.value != "" {
		return "(hidden)"
	}
	return l.value
}

func (b *block) at(key string) string { return under(b.path, key) }

// under is a path below another.
func under(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func (b *block) line(key string) (line, bool) {
	i := slices.IndexFunc(b.lines, func(l line) bool { return l.key == key })
	if i < 0 {
		return line{}, false
	}
	return b.lines[i], true
}

func (b *block) block(path string) *block {
	i := slices.IndexFunc(b.blocks, func(inner *block) bool { return inner.path == path })
	if i < 0 {
		return nil
	}
	return b.blocks[i]
}

// summary is what a block says that is not the default.
func (b *block) summary() string {
	var parts []string
	for _, l := range b.lines {
		if !l.usual && l.value != "" {
			parts = append(parts, l.key+": "+l.shown())
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// add notes a key; usual is the value that it has if the file leaves it out.
func (b *block) add(key, value, usual string) {
	b.lines = append(b.lines, line{key: key, value: value, live: b.live, usual: value == usual, hidden: b.hides != nil && b.hides(key)})
}
