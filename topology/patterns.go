package topology

import (
	"fmt"
	"regexp"
	"strings"
)

// patterns is a list of regular expressions, each of which must match the whole of a text.
type patterns []*regexp.Regexp

func (p patterns) match(s string) bool {
	for _, pattern := range p {
		if pattern.MatchString(s) {
			return true
		}
	}
	return false
}

// compilePattern compiles a pattern that must match the whole of a text.
func compilePattern(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil { // alone first: "a)(b" must not become legal by the wrapping
		return nil, err
	}
	return regexp.Compile(`\A(?:` + pattern + `)\z`)
}

func compilePatterns(list []string) (patterns, error) {
	compiled := make(patterns, 0, len(list))
	for _, pattern := range list {
		re, err := compilePattern(pattern)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		compiled = append(compiled, re)
	}
	return compiled, nil
}

// compile makes the patterns usable. clusters are all the names that can stand
// before a separator, all are the flows of the file.
func (f *Flow) compile(clusters []string, all []*Flow) error {
	f.settle()
	f.letterPatterns = lettersOf(f, all)
	for _, list := range []struct {
		to   *patterns
		from []string
	}{
		{&f.topics, f.Topics},
		{&f.excludeTopics, f.ExcludeTopics},
		{&f.groups, f.Groups},
		{&f.excludeGroups, f.ExcludeGroups},
		{&f.excludeConfigs, f.Configs.Exclude},
		{&f.letters, f.letterPatterns},
	} {
		compiled, err := compilePatterns(list.from)
		if err != nil {
			return err
		}
		*list.to = compiled
	}
	for i := range f.Start {
		compiled, err := compilePatterns(f.Start[i].Topics)
		if err != nil {
			return err
		}
		f.Start[i].topics = compiled
	}
	for i := range f.TopicRules {
		compiled, err := compilePatterns(f.TopicRules[i].Topics)
		if err != nil {
			return err
		}
		f.TopicRules[i].topics = compiled
	}
	for i := range f.Filters {
		if err := f.Filters[i].compile(); err != nil {
			return err
		}
	}
	prefixes := make([]string, 0, len(clusters))
	for _, name := range clusters {
		prefixes = append(prefixes, name+f.Separator)
	}
	var err error
	if f.heartbeats, err = compilePattern(f.heartbeatsPattern(prefixes)); err != nil {
		return err
	}
	if f.loops, err = compilePattern(f.loopPattern(prefixes)); err != nil {
		return err
	}
	return f.compileRename()
}

// heartbeatsPattern matches "heartbeats" and what became of it on its way here.
func (f *Flow) heartbeatsPattern(prefixes []string) string {
	return `(` + alternatives(prefixes) + `)*` + HeartbeatsTopic
}

// alternatives is a pattern for one of some texts.
func alternatives(texts []string) string {
	quoted := make([]string, 0, len(texts))
	for _, text := range texts {
		quoted = append(quoted, regexp.QuoteMeta(text))
	}
	return strings.Join(quoted, "|")
}

// maxPattern bounds one regular expression, in bytes; RE2 runs in linear time, but its program grows with it.
const maxPattern = 4096
