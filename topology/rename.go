package topology

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// RenameRule gives topics another name on the target.
//
// Names must map back, so a rule over patterns is an invertible one: what varies
// stands in groups, each group stands once in To and in the same order, and
// where a group ends in the new name is never in question. Where Topics of the
// flow are plain names, any rule will do whose results differ.
type RenameRule struct {
	From string // RE2, full match
	To   string // $1 to $9 stand for the groups

	from   *regexp.Regexp
	pieces []renamePiece // From and To side by side; nil: only for listed topics
	back   *regexp.Regexp
}

// renamePiece is fixed text of both names, and a group behind it; the last one has no group.
type renamePiece struct {
	source, target string
	group          string // its pattern; empty: the end
}

// maxRenameGroups is how many groups $1 to $9 can name.
const maxRenameGroups = 9

// renameError is what is wrong with a rule.
type renameError struct {
	inTo            bool // it is To that is wrong
	problem, remedy string
}

func (e *renameError) Error() string { return e.problem }

// compile makes a rule usable for listed topics. The error is a *renameError.
func (rule *RenameRule) compile() error {
	var err error
	if rule.from, err = compilePattern(rule.From); err != nil {
		return &renameError{problem: "is not a regular expression: " + regexpReason(err), remedy: "correct the RE2 expression; it must match the whole name"}
	}
	parts, err := templateParts(rule.To)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if part.group > rule.from.NumSubexp() {
			return &renameError{inTo: true, problem: fmt.Sprintf("$%d stands for no group, there are %d", part.group, rule.from.NumSubexp()), remedy: "put what it shall stand for in parentheses"}
		}
	}
	return nil
}

// templatePart is fixed text, then a group; the last part has none (0).
type templatePart struct {
	text  string
	group int
}

func templateParts(to string) ([]templatePart, error) {
	var parts []templatePart
	rest := to
	for {
		text, after, found := strings.Cut(rest, "$")
		if !onlyTopicChars(text) {
			return nil, &renameError{inTo: true, problem: "has characters that no topic name may have", remedy: "use letters, digits, dots, underscores, hyphens, and $1 to $9"}
		}
		if !found {
			return append(parts, templatePart{text: text}), nil
		}
		if after == "" || after[0] < '1' || after[0] > '0'+maxRenameGroups {
			return nil, &renameError{inTo: true, problem: "has a $ without a digit from 1 to 9", remedy: "write $1 for what the first parentheses match"}
		}
		parts = append(parts, templatePart{text: text, group: int(after[0] - '0')})
		rest = after[1:]
	}
}

// apply gives a topic its new name, false if the rule does not match it.
func (rule *RenameRule) apply(topic string) (string, bool) {
	match := rule.from.FindStringSubmatchIndex(topic)
	if match == nil {
		return "", false
	}
	var b strings.Builder
	parts, _ := templateParts(rule.To) // checked by compile
	for _, part := range parts {
		b.WriteString(part.text)
		if from := match[2*part.group]; part.group > 0 && from >= 0 {
			b.WriteString(topic[from:match[2*part.group+1]])
		}
	}
	return b.String(), true
}

// invert splits the rule into pieces, so that it can be followed backwards. The error is a *renameError.
func (rule *RenameRule) invert() error {
	const fixed = "put what varies in parentheses, or list the topics of the flow by their names, a dot as \\."
	tree, err := syntax.Parse(rule.From, syntax.Perl)
	if err != nil {
		return err
	}
	items := []*syntax.Regexp{tree}
	if tree.Op == syntax.OpConcat {
		items = tree.Sub
	}
	var texts, groups []string
	text := ""
	for i, item := range items {
		switch {
		case item.Op == syntax.OpEmptyMatch:
		case item.Op == syntax.OpBeginText && i == 0, item.Op == syntax.OpEndText && i == len(items)-1:
		case item.Op == syntax.OpLiteral && item.Flags&syntax.FoldCase == 0:
			text += string(item.Rune)
		case item.Op == syntax.OpCapture && item.Sub[0].MaxCap() == 0 && !looksAround(item.Sub[0]):
			texts, groups = append(texts, text), append(groups, item.Sub[0].String())
			text = ""
		default:
			return &renameError{problem: "cannot be turned round: outside its groups more than one text matches", remedy: fixed}
		}
	}
	texts = append(texts, text)
	parts, err := templateParts(rule.To)
	if err != nil {
		return err
	}
	if len(parts) != len(texts) {
		return &renameError{inTo: true, problem: fmt.Sprintf("cannot be turned round: it names %d of %d groups, each must stand there once", len(parts)-1, len(groups)), remedy: "name each group once, or list the topics of the flow by their names, a dot as \\."}
	}
	rule.pieces = make([]renamePiece, 0, len(texts))
	back := strings.Builder{}
	for i, part := range parts {
		piece := renamePiece{source: texts[i], target: part.text}
		back.WriteString(regexp.QuoteMeta(part.text))
		if i < len(groups) {
			if part.group != i+1 {
				return &renameError{inTo: true, problem: "cannot be proved to be turned round: its groups stand in another order", remedy: "keep their order, or list the topics of the flow by their names, a dot as \\."}
			}
			piece.group = groups[i]
			back.WriteString("(" + groups[i] + ")")
		}
		rule.pieces = append(rule.pieces, piece)
	}
	rule.back, err = compilePattern(back.String())
	return err
}

// looksAround reports whether a pattern asks for what stands beside it.
func looksAround(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return true
	default:
		return slices.ContainsFunc(re.Sub, looksAround)
	}
}

// source is the inverse of apply, for a rule that has been inverted.
func (rule *RenameRule) source(renamed string) (string, bool) {
	if rule.back == nil {
		return "", false
	}
	match := rule.back.FindStringSubmatch(renamed)
	if match == nil {
		return "", false
	}
	var b strings.Builder
	for i, piece := range rule.pieces {
		b.WriteString(piece.source)
		if i+1 < len(match) {
			b.WriteString(match[i+1])
		}
	}
	return b.String(), true
}

// renamed is a topic's name on the target without the prefix.
func (f *Flow) renamed(topic string) string {
	if f.isHeartbeats(topic) {
		return topic
	}
	for i := range f.Rename {
		if name, ok := f.Rename[i].apply(topic); ok {
			return name
		}
	}
	return topic
}

// original is the inverse of renamed: of the topics that would get this name the
// one that the flow mirrors; if it mirrors none of them, any.
func (f *Flow) original(name string) (string, bool) {
	if source, ok := f.listed[name]; ok {
		return source, true
	}
	found, ok := "", false
	keep := func(source string) bool {
		if !LegalTopic(source) || f.renamed(source) != name {
			return false
		}
		if !ok || f.Selects(source) {
			found, ok = source, true
		}
		return f.Selects(source)
	}
	for i := range f.Rename {
		if source, matches := f.Rename[i].source(name); matches && keep(source) {
			return found, true
		}
	}
	keep(name)
	return found, ok
}

// plainNames reports whether the flow's topics are names rather than patterns, and which.
func (f *Flow) plainNames() ([]string, bool) {
	names := make([]string, 0, len(f.Topics))
	for _, pattern := range f.Topics {
		tree, err := syntax.Parse(pattern, syntax.Perl)
		if err != nil || tree.Op != syntax.OpLiteral || tree.Flags&syntax.FoldCase != 0 {
			return nil, false
		}
		names = append(names, string(tree.Rune))
	}
	return names, true
}

// compileRename makes the rules usable and finds out whether they can be turned
// round.
func (f *Flow) compileRename() error {
	for i := range f.Rename {
		if err := f.Rename[i].compile(); err != nil {
			return fmt.Errorf("rename[%d]: %w", i, err)
		}
	}
	if len(f.Rename) == 0 {
		return nil
	}
	if names, listed := f.plainNames(); listed {
		f.listed = make(map[string]string, len(names))
		for _, name := range names {
			if _, taken := f.listed[f.renamed(name)]; !taken { // two of them: prove says so
				f.listed[f.renamed(name)] = name
			}
		}
		return nil
	}
	for i := range f.Rename {
		if err := f.Rename[i].invert(); err != nil {
			return fmt.Errorf("rename[%d]: %w", i, err)
		}
	}
	return nil
}
