package topology

import (
	"maps"
	"regexp"
	"slices"
	"sync"
)

// Filter leaves out some records of some topics. A record is left out if all
// that the filter names match: the whole key, and for each header one header of
// that name whose whole value matches. What is null matches nothing.
type Filter struct {
	Topics  []string          // of the source, RE2, full match
	Key     string            // RE2, full match; empty: any key, or none
	Headers map[string]string // by header name, RE2, full match

	topics patterns
	drops  []drop // of this filter, or of several that are asked together
}

// drop is what one filter names, compiled.
type drop struct {
	key     *regexp.Regexp
	headers []headerPattern // by name
	walks   *sync.Pool      // of *walk
}

type headerPattern struct {
	name  string
	value *regexp.Regexp
}

func (x *Filter) compile() error {
	var err error
	if x.topics, err = compilePatterns(x.Topics); err != nil {
		return err
	}
	var d drop
	if x.Key != "" {
		if d.key, err = compileBytesPattern(x.Key); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(x.Headers)) {
		value, err := compileBytesPattern(x.Headers[name])
		if err != nil {
			return err
		}
		d.headers = append(d.headers, headerPattern{name: name, value: value})
	}
	d.walks = &sync.Pool{New: func() any { return newWalk(d.headers) }}
	x.drops = []drop{d}
	return nil
}

// compileBytesPattern is compilePattern for what is no name: a dot also stands for a line end.
func compileBytesPattern(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?s:` + pattern + `)\z`)
}

// FilterFor is what leaves out records of a topic of the source, nil if nothing
// does. Where several filters match the topic, a record is left out if one of
// them says so.
func (f *Flow) FilterFor(topic string) *Filter {
	var found *Filter
	for i := range f.Filters {
		filter := &f.Filters[i]
		switch {
		case !filter.topics.match(topic):
		case found == nil:
			found = filter
		default:
			found = &Filter{drops: slices.Concat(found.drops, filter.drops)}
		}
	}
	return found
}

// Drops reports whether a record is left out. headers walks the record's headers,
// and may be nil if it has none; key and value are only read. It is safe for
// concurrent use and allocates nothing itself.
func (x *Filter) Drops(key []byte, headers func(yield func(name string, value []byte) bool)) bool {
	for i := range x.drops {
		if x.drops[i].matches(key, headers) {
			return true
		}
	}
	return false
}

func (d *drop) matches(key []byte, headers func(yield func(name string, value []byte) bool)) bool {
	if d.key != nil && (key == nil || !d.key.Match(key)) {
		return false
	}
	if len(d.headers) == 0 {
		return true
	}
	if headers == nil {
		return false
	}
	w, _ := d.walks.Get().(*walk)
	defer d.walks.Put(w)
	w.missing = len(d.headers)
	clear(w.found)
	headers(w.visit)
	return w.missing == 0
}

// walk goes over a record's headers. It is kept, so that asking allocates nothing.
type walk struct {
	wanted  []headerPattern
	found   []bool
	missing int
	visit   func(name string, value []byte) bool // w.look
}

func newWalk(wanted []headerPattern) *walk {
	w := &walk{wanted: wanted, found: make([]bool, len(wanted))}
	w.visit = w.look
	return w
}

func (w *walk) look(name string, value []byte) bool {
	for i := range w.wanted {
		if want := &w.wanted[i]; !w.found[i] && want.name == name && value != nil && want.value.Match(value) {
			w.found[i] = true
			w.missing--
		}
	}
	return w.missing > 0
}
