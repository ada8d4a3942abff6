package topology

import (
	"fmt"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

const (
	// maxSteps bounds the nodes looked at, so that aliases of aliases cannot multiply a small file.
	maxSteps = 100_000
	// maxMerges bounds how deep merge keys (<<) may nest; one that contains itself ends here.
	maxMerges = 8
)

// value is a node and where it stands. Its node is never an alias.
type value struct {
	node *yaml.Node
	path string
}

func (v value) present() bool { return v.node != nil }

// reader walks the YAML tree, strictly, and collects what is wrong with it.
type reader struct {
	file        string
	dir         string // of the file
	lookup      func(string) (string, bool)
	faults      Faults
	steps       int
	substituted int      // how many ${...} were replaced
	veiled      []string // where
}

func (r *reader) fault(v value, remedy, format string, args ...any) {
	line := 0
	if v.node != nil {
		line = v.node.Line
	}
	r.faults = append(r.faults, Fault{File: r.file, Line: line, Path: v.path, Problem: fmt.Sprintf(format, args...), Remedy: remedy})
}

// at makes the value of a node, following its alias.
func (r *reader) at(node *yaml.Node, path string) value {
	r.steps++
	for i := 0; node.Kind == yaml.AliasNode && i < maxMerges; i++ {
		aliased := *node.Alias
		aliased.Line, aliased.Column = node.Line, node.Column // a fault is shown where it is used
		node = &aliased
	}
	return value{node: node, path: path}
}

// exhausted reports, once, that aliases make the file too large to look at.
func (r *reader) exhausted(v value) bool {
	if r.steps < maxSteps {
		return false
	}
	if r.steps < 2*maxSteps {
		r.steps = 2 * maxSteps
		r.fault(v, "write less, or use fewer aliases", "the file has more than %d values, aliases counted as often as they are used", maxSteps)
	}
	return true
}

// entry is one key of a mapping and its value.
type entry struct {
	key   string
	at    value // of the key
	value value
}

// entries returns what a mapping holds, in file order, merge keys resolved. It
// faults values that are no mapping, keys that are no text, and duplicates.
func (r *reader) entries(v value) ([]entry, bool) {
	if v.node.Kind != yaml.MappingNode {
		r.fault(v, "write key: value lines below it", "want a mapping, got %s", describe(v.node))
		return nil, false
	}
	var found []entry
	r.collect(v, 0, map[string]int{}, &found)
	return found, true
}

func (r *reader) collect(v value, merged int, seen map[string]int, found *[]entry) {
	var merges []value
	own := map[string]int{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		if r.exhausted(v) {
			return
		}
		key := r.at(v.node.Content[i], v.path)
		if key.node.ShortTag() == "!!merge" {
			merges = append(merges, r.at(v.node.Content[i+1], v.path))
			continue
		}
		if key.node.Kind != yaml.ScalarNode || key.node.ShortTag() != "!!str" {
			r.fault(key, "put the key in quotes if it is meant as a name", "want a name as key, got %s", describe(key.node))
			continue
		}
		name := key.node.Value
		path := join(v.path, name)
		if line, twice := own[name]; twice {
			r.fault(value{key.node, path}, "keep one of them", "is given twice, first in line %d", line)
			continue
		}
		own[name] = key.node.Line
		if _, overridden := seen[name]; overridden {
			continue // a merged mapping yields to the keys beside the merge
		}
		seen[name] = key.node.Line
		*found = append(*found, entry{key: name, at: value{key.node, path}, value: r.at(v.node.Content[i+1], path)})
	}
	for _, merge := range merges {
		switch {
		case merged >= maxMerges:
			r.fault(merge, "merge fewer mappings into each other", "merge keys nest deeper than %d", maxMerges)
		case merge.node.Kind == yaml.MappingNode:
			r.collect(merge, merged+1, seen, found)
		case merge.node.Kind == yaml.SequenceNode:
			for _, node := range merge.node.Content {
				if r.exhausted(v) {
					return
				}
				if part := r.at(node, v.path); part.node.Kind == yaml.MappingNode {
					r.collect(part, merged+1, seen, found)
				} else {
					r.fault(part, "merge mappings only", "want a mapping to merge, got %s", describe(part.node))
				}
			}
		default:
			r.fault(merge, "merge mappings only", "want a mapping to merge, got %s", describe(merge.node))
		}
	}
}

// field is a key that a mapping may have.
type field struct {
	name string
	read func(value)
}

// mapping reads a mapping whose keys are known. A key without a value is a fault.
func (r *reader) mapping(v value, fields []field, synonyms map[string]string) bool {
	entries, ok := r.entries(v)
	if !ok {
		return false
	}
	names := make([]string, 0, len(fields))
	known := make(map[string]func(value), len(fields))
	for _, f := range fields {
		names = append(names, f.name)
		known[f.name] = f.read
	}
	for _, e := range entries {
		read, ok := known[e.key]
		if !ok {
			r.fault(e.at, suggest(e.key, names, synonyms), "unknown key")
			continue
		}
		read(e.value)
	}
	return true
}

// given reports whether there is a value at all, and faults if there is none.
func (r *reader) given(v value) bool {
	if isNull(v.node) {
		r.fault(v, "give it a value, or remove the key", "has no value")
		return false
	}
	return true
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

// items returns the elements of a list.
func (r *reader) items(v value) ([]value, bool) {
	if !r.given(v) {
		return nil, false
	}
	if v.node.Kind != yaml.SequenceNode {
		remedy := "write it as a list: [a, b], or one \"- item\" per line"
		r.fault(v, remedy, "want a list, got %s", describe(v.node))
		return nil, false
	}
	list := make([]value, 0, min(len(v.node.Content), 1024))
	for i, node := range v.node.Content {
		if r.exhausted(v) {
			return nil, false
		}
		list = append(list, r.at(node, v.path+"["+strconv.Itoa(i)+"]"))
	}
	return list, true
}

// describe says what a node is, without its text.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch node.ShortTag() {
		case "!!str":
			return "text"
		case "!!int", "!!float":
			return "a number"
		case "!!bool":
			return "true or false"
		case "!!null":
			return "nothing"
		case "!!timestamp":
			return "a date"
		}
		return "a value tagged " + node.ShortTag()
	case yaml.DocumentNode, yaml.AliasNode:
	}
	return "something else"
}

// join appends a key to a path; one that is no plain name stands in brackets.
func join(path, key string) string {
	plain := key != "" && strings.IndexFunc(key, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-'
	}) < 0
	switch {
	case !plain && strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c == '[' || c == ']' || c > '~' }):
		return path + "[" + strconv.Quote(key) + "]"
	case !plain:
		return path + "[" + key + "]"
	case path == "":
		return key
	}
	return path + "." + key
}
