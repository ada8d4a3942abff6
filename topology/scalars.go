package topology

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// scalar is a text from the file, its substitutions done.
type scalar struct {
	text        string
	shown       string // for a fault: as it stands in the file, quoted; never what was substituted
	substituted bool
}

// scalar reads any scalar as text, whatever its type.
func (r *reader) scalar(v value) (scalar, bool) {
	if !r.given(v) {
		return scalar{}, false
	}
	if v.node.Kind != yaml.ScalarNode {
		r.fault(v, "write one value", "want a single value, got %s", describe(v.node))
		return scalar{}, false
	}
	text, substituted, ok := r.substitute(v)
	return scalar{text: text, shown: strconv.Quote(v.node.Value), substituted: substituted}, ok
}

// text reads text; a number, date or true is a fault, because YAML may have changed it.
func (r *reader) text(v value) (scalar, bool) {
	s, ok := r.scalar(v)
	if ok && v.node.ShortTag() != "!!str" {
		r.fault(v, "put it in quotes", "want text, got %s", describe(v.node))
		return s, false
	}
	return s, ok
}

// name reads text that must not be empty.
func (r *reader) name(v value, to *string) bool {
	s, ok := r.text(v)
	if !ok {
		return false
	}
	if s.text == "" {
		r.fault(v, "give it a value, or remove the key", "is empty")
		return false
	}
	*to = s.text
	return true
}

// secret reads text that is never shown.
func (r *reader) secret(v value, to *Secret) {
	s, ok := r.text(v)
	switch {
	case !ok:
	case s.text == "":
		r.fault(v, "give it a value, or remove the key", "is empty")
	default:
		*to = NewSecret(s.text)
	}
}

func (r *reader) boolean(v value, to *bool) {
	s, ok := r.scalar(v)
	if !ok {
		return
	}
	switch {
	case s.text == "true" && (v.node.ShortTag() == "!!bool" || s.substituted):
		*to = true
	case s.text == "false" && (v.node.ShortTag() == "!!bool" || s.substituted):
		*to = false
	default:
		r.fault(v, "write true or false", "want true or false, got %s", s.shown)
	}
}

func (r *reader) integer(v value, least, most int64, to *int64) {
	s, ok := r.scalar(v)
	if !ok {
		return
	}
	n, err := strconv.ParseInt(s.text, 10, 64)
	if err != nil || v.node.ShortTag() != "!!int" && !s.substituted {
		r.fault(v, "write a whole number without quotes", "want a number, got %s", s.shown)
		return
	}
	if n < least || n > most {
		r.fault(v, "choose a number from "+strconv.FormatInt(least, 10)+" to "+strconv.FormatInt(most, 10), "%s is out of range", s.shown)
		return
	}
	*to = n
}

// duration reads Go's durations, and whole days as in 7d.
func (r *reader) duration(v value, least, most time.Duration, to *time.Duration) {
	s, ok := r.scalar(v)
	if !ok {
		return
	}
	d, err := time.ParseDuration(s.text)
	if days, isDays := strings.CutSuffix(s.text, "d"); isDays {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16) // 65535 days are far from overflow
		d = time.Duration(n) * 24 * time.Hour
	}
	switch {
	case err != nil:
		r.fault(v, "write a number with its unit, as in 500ms, 10s, 5m, 2h or 7d", "%s is not a duration", s.shown)
	case d < least || d > most:
		r.fault(v, "choose a duration from "+short(least)+" to "+short(most), "%s is out of range", s.shown)
	default:
		*to = d
	}
}

// short is a duration without its empty units: 1h0m0s is 1h.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// size reads a number of bytes: 1048576, 64MiB, 1GiB, 500MB.
func (r *reader) size(v value, least, most int64, to *int64) {
	s, ok := r.scalar(v)
	if !ok {
		return
	}
	n, ok := parseSize(s.text)
	switch {
	case !ok:
		r.fault(v, "write a whole number with its unit, as in 64MiB or 1GiB", "%s is not a size", s.shown)
	case n < least || n > most:
		r.fault(v, "choose a size from "+formatSize(least)+" to "+formatSize(most), "%s is out of range", s.shown)
	default:
		*to = n
	}
}

func parseSize(s string) (int64, bool) {
	digits := strings.TrimRight(s, "BKMGTikb")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	var unit int64
	switch s[len(digits):] {
	case "", "B":
		unit = 1
	case "KiB":
		unit = 1 << 10
	case "MiB":
		unit = 1 << 20
	case "GiB":
		unit = 1 << 30
	case "TiB":
		unit = 1 << 40
	case "kB", "KB":
		unit = 1e3
	case "MB":
		unit = 1e6
	case "GB":
		unit = 1e9
	case "TB":
		unit = 1e12
	default:
		return 0, false
	}
	if n > math.MaxInt64/unit {
		return 0, false
	}
	return n * unit, true
}

func formatSize(n int64) string {
	for _, unit := range []struct {
		bytes int64
		name  string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.bytes && n%unit.bytes == 0 {
			return strconv.FormatInt(n/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// choice reads one of a few words.
func (r *reader) choice(v value, to *string, words ...string) bool {
	s, ok := r.text(v)
	if !ok {
		return false
	}
	for _, word := range words {
		if s.text == word {
			*to = word
			return true
		}
	}
	near := ""
	if !s.substituted {
		near = nearest(s.text, words)
	}
	remedy := "write " + either(words)
	if near != "" {
		remedy = "did you mean " + near + "?"
	}
	r.fault(v, remedy, "unknown word %s", s.shown)
	return false
}

// patterns reads a list of regular expressions.
func (r *reader) patterns(v value, to *[]string) bool {
	items, ok := r.items(v)
	if !ok {
		return false
	}
	list := make([]string, 0, len(items))
	for _, item := range items {
		s, read := r.text(item)
		if !read {
			ok = false
			continue
		}
		if s.text == "" {
			ok = false
			r.fault(item, `write ".*" for everything`, "is an empty pattern, which matches nothing")
			continue
		}
		if len(s.text) > maxPattern {
			ok = false
			r.fault(item, "split it into several patterns", "is a pattern of more than %d bytes", maxPattern)
			continue
		}
		if _, err := compilePattern(s.text); err != nil {
			ok = false
			remedy := "correct the RE2 expression; it must match the whole name"
			if strings.HasPrefix(s.text, "*") {
				remedy = `write ".*" where a shell would write "*"`
			}
			if s.substituted {
				r.fault(item, remedy, "%s is not a regular expression", s.shown)
			} else {
				r.fault(item, remedy, "%s is not a regular expression: %s", s.shown, regexpReason(err))
			}
			continue
		}
		list = append(list, s.text)
	}
	if ok {
		*to = list
	}
	return ok
}

// existing reads the path of a file that must be there, relative to the directory of the configuration.
func (r *reader) existing(v value, to *string) {
	s, ok := r.text(v)
	if !ok {
		return
	}
	if s.text == "" {
		r.fault(v, "give it a value, or remove the key", "is empty")
		return
	}
	path := r.resolve(s.text)
	info, err := os.Stat(path)
	switch {
	case err != nil:
		r.fault(v, "check the path; a relative one starts at the directory of this file", "%s cannot be read: %s", s.shown, osReason(err))
	case info.IsDir():
		r.fault(v, "name a file in it", "%s is a directory", s.shown)
	default:
		*to = path
	}
}

func (r *reader) resolve(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(r.dir, path)
}
