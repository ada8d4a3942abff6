package mm2

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Kind says what became of a key.
type Kind string

// The kinds, in the order of a report.
const (
	KindToDo       Kind = "to do"      // mirror.yaml cannot say it, or not all of it: somebody has to do something
	KindDifferent  Kind = "different"  // kmirror does it in another way
	KindTranslated Kind = "translated" // it stands in mirror.yaml
	KindNotNeeded  Kind = "not needed" // kmirror does it by itself, or has no such thing
	KindNoEffect   Kind = "no effect"  // MirrorMaker 2 did not heed it either
)

// Kinds returns all kinds in the order of a report.
func Kinds() []Kind {
	return []Kind{KindToDo, KindDifferent, KindTranslated, KindNotNeeded, KindNoEffect}
}

// Finding is what became of one key. No value stands in it.
type Finding struct {
	Kind Kind   `json:"kind"`
	Key  string `json:"key"`  // as it stands in the file; of what was left out, MirrorMaker 2's key
	Line int    `json:"line"` // 0: it is not in the file, and MirrorMaker 2's default is meant
	What string `json:"what"`
}

// Imported is what a property file became.
type Imported struct {
	YAML      []byte
	Findings  []Finding
	Variables []string // of the environment, that mirror.yaml now needs
}

// ToDo counts the findings that somebody has to do something about.
func (i *Imported) ToDo() int {
	n := 0
	for _, f := range i.Findings {
		if f.Kind == KindToDo {
			n++
		}
	}
	return n
}

// Import translates the property file of a MirrorMaker 2 in dedicated mode. Every key
// of the file is in the findings. Secrets stand neither in the result nor in an error.
// Its errors say why there can be no mirror.yaml at all.
func Import(name string, data []byte) (*Imported, error) {
	all, err := ParseProperties(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	m := &importer{name: name, props: map[string]Property{}, told: map[string]bool{}}
	for _, p := range all {
		p.Value = strings.TrimSpace(p.Value) // as ConfigDef does
		if before, twice := m.props[p.Key]; twice {
			m.findings = append(m.findings, Finding{KindNoEffect, p.Key, before.Line, fmt.Sprintf("it stands again in line %d: the last one holds", p.Line)})
		}
		m.props[p.Key] = p
	}
	if err := m.aliases(); err != nil {
		return nil, err
	}
	m.providers()
	for _, alias := range m.clusters {
		m.cluster(alias)
	}
	for _, from := range m.clusters {
		for _, to := range m.clusters {
			if from != to {
				m.flow(from, to)
			}
		}
	}
	if len(m.flowText) == 0 {
		m.tell(KindToDo, "clusters", "no flow is enabled (A->B.enabled = true): mirror.yaml has none")
	}
	m.rest()
	return m.result(), nil
}

// importer holds what is known while a file is translated.
type importer struct {
	name     string
	props    map[string]Property
	told     map[string]bool // keys that have a finding
	findings []Finding

	clusters    []string
	classes     map[string]string // of config providers
	clusterText []string          // lines of mirror.yaml
	flowText    []string
	flows       []string
	variables   []string
}

// validName is what topology takes for the name of a cluster.
func validName() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`) }

func (m *importer) aliases() error {
	p, ok := m.props["clusters"]
	if !ok || p.Value == "" {
		return errors.New("it names no clusters (clusters = A, B): this is not the property file of a MirrorMaker 2 in dedicated mode; from the connectors of a Connect cluster write one with their keys, see docs/mirrormaker2.md")
	}
	m.clusters = list(p.Value)
	for i, alias := range m.clusters {
		if !validName().MatchString(alias) {
			return fmt.Errorf("line %d: the alias %q cannot be a cluster's name in mirror.yaml (1 to 64 letters, digits, dots, underscores, hyphens), and another name would give its topics another prefix", p.Line, alias)
		}
		if slices.Contains(m.clusters[:i], alias) {
			return fmt.Errorf("line %d: the alias %q stands there twice", p.Line, alias)
		}
	}
	m.tell(KindTranslated, "clusters", "clusters")
	return nil
}

// list splits a list as ConfigDef does.
func list(value string) []string {
	var all []string
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			all = append(all, part)
		}
	}
	return all
}

// tell notes what became of a key, once.
func (m *importer) tell(kind Kind, key, what string) {
	p, there := m.props[key]
	if there && m.told[key] {
		return
	}
	m.told[key] = true
	f := Finding{Kind: kind, Key: key, What: what}
	if there {
		f.Line = p.Line
	}
	if !slices.Contains(m.findings, f) {
		m.findings = append(m.findings, f)
	}
}

// also notes a further word on a key.
func (m *importer) also(kind Kind, key, what string) {
	f := Finding{Kind: kind, Key: key, Line: m.props[key].Line, What: what}
	m.told[key] = true
	if !slices.Contains(m.findings, f) {
		m.findings = append(m.findings, f)
	}
}

// first is the first of several keys that is in the file, the most special one first.
func (m *importer) first(keys ...string) (p Property, ok bool) {
	for _, key := range keys {
		if p, ok = m.props[key]; ok {
			return p, true
		}
	}
	return Property{Key: keys[len(keys)-1]}, false
}

// ofFlow is the value that a connector of a flow gets: A->B.key before key.
func (m *importer) ofFlow(from, to, key string) (Property, bool) {
	p, ok := m.first(from+"->"+to+"."+key, key)
	if !ok {
		p.Key = key
	}
	return p, ok
}

// ofCluster is the value that the clients of a cluster get: A.key before key; what only
// some clients get (A.consumer.key) is better than nothing.
func (m *importer) ofCluster(alias, key string) (Property, bool) {
	return m.first(alias+"."+key, key, alias+".admin."+key, alias+".consumer."+key, alias+".producer."+key)
}

func isTrue(value string) bool { return strings.EqualFold(value, "true") }

// providers finds out what the names of config providers mean.
func (m *importer) providers() {
	m.classes = map[string]string{}
	p, ok := m.props["config.providers"]
	if !ok {
		return
	}
	for _, name := range list(p.Value) {
		class := m.props["config.providers."+name+".class"].Value
		class = class[strings.LastIndexByte(class, '.')+1:]
		m.classes[name] = class
		switch class {
		case "EnvVarConfigProvider", "DirectoryConfigProvider", "FileConfigProvider":
		default:
			m.also(KindToDo, "config.providers", fmt.Sprintf("kmirror has no provider like %s (%s): it knows ${NAME} and ${file:PATH}", name, class))
		}
	}
	m.tell(KindTranslated, "config.providers", "${NAME} and ${file:PATH} work everywhere in mirror.yaml")
}

// reference is ${provider:path:key} as mirror.yaml has it; not ok for a value without
// such a reference, and for one whose provider has no counterpart.
func (m *importer) reference(value string) (text string, ok bool) {
	parts := regexp.MustCompile(`^\$\{([^}:]+):(?:([^}]*):)?([^}:]*)\}$`).FindStringSubmatch(value)
	if parts == nil {
		return "", false
	}
	switch m.classes[parts[1]] {
	case "EnvVarConfigProvider":
		return "${" + parts[3] + "}", true
	case "DirectoryConfigProvider":
		return "${file:" + strings.TrimSuffix(parts[2], "/") + "/" + parts[3] + "}", true
	}
	return "", false
}

// secret is how mirror.yaml refers to a secret: never by its value.
func (m *importer) secret(alias, what, key, value string) string {
	if text, ok := m.reference(value); ok {
		return text
	}
	name := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, strings.ToUpper(alias+"_"+what))
	if name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	if !slices.Contains(m.variables, name) {
		m.variables = append(m.variables, name)
	}
	m.also(KindToDo, key, fmt.Sprintf("set ${%s} in the environment to the secret that stands there, or write ${file:PATH} in its place; it was not copied", name))
	return "${" + name + "}"
}

// plain is a text of the property file as a scalar of mirror.yaml.
func (m *importer) plain(value string) string {
	if text, ok := m.reference(value); ok {
		return quote(text)
	}
	return quote(strings.ReplaceAll(value, "${", "$${"))
}

// quote writes a YAML scalar.
func quote(s string) string {
	if regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*$`).MatchString(s) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Sprintf("%q", s)
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

func quoteAll(all []string) string {
	quoted := make([]string, 0, len(all))
	for _, s := range all {
		quoted = append(quoted, quote(strings.ReplaceAll(s, "${", "$${")))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
