package mm2

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// Property is one entry of a Java property file.
type Property struct {
	Key, Value string
	Line       int // where it begins, from 1
}

// ParseProperties reads a file as java.util.Properties does: comments with # and !,
// keys that end at the first = or : or blank that is not escaped, lines that go on
// after a backslash, escapes (\t, \n, \r, \f, \uXXXX, and \ before anything else), and
// bytes in ISO 8859-1. Entries come in the order of the file, repeated keys included:
// the last one holds. An escape that Java refuses is an error that names its line.
func ParseProperties(data []byte) ([]Property, error) {
	text := make([]rune, len(data))
	for i, b := range data {
		text[i] = rune(b)
	}
	var all []Property
	for line := 1; len(text) > 0; {
		logical, lines, rest := logicalLine(text)
		at := line
		line, text = line+lines, rest
		if len(logical) == 0 || logical[0] == '#' || logical[0] == '!' {
			continue
		}
		key, value := splitProperty(logical)
		p := Property{Line: at}
		var err error
		if p.Key, err = unescape(key); err == nil {
			p.Value, err = unescape(value)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", at, err)
		}
		all = append(all, p)
	}
	return all, nil
}

func blank(r rune) bool { return r == ' ' || r == '\t' || r == '\f' }

func lineEnd(r rune) bool { return r == '\n' || r == '\r' }

// logicalLine takes the next line with those that it goes on in, without what is blank
// before each, and says how many lines of the file that were.
func logicalLine(text []rune) (line []rune, lines int, rest []rune) {
	for {
		text = text[skip(text, blank):]
		n := 0
		for n < len(text) && !lineEnd(text[n]) {
			n++
		}
		part := text[:n]
		text = text[n:]
		if len(text) > 0 {
			lines++
			if len(text) > 1 && text[0] == '\r' && text[1] == '\n' {
				text = text[1:]
			}
			text = text[1:]
		}
		comment := len(line) == 0 && len(part) > 0 && (part[0] == '#' || part[0] == '!')
		slashes := 0
		for slashes < len(part) && part[len(part)-1-slashes] == '\\' {
			slashes++
		}
		if comment || slashes%2 == 0 {
			return append(line, part...), max(lines, 1), text
		}
		line = append(line, part[:len(part)-1]...)
		if len(text) == 0 {
			return line, max(lines, 1), text
		}
	}
}

func skip(text []rune, what func(rune) bool) int {
	n := 0
	for n < len(text) && what(text[n]) {
		n++
	}
	return n
}

// splitProperty finds where the key ends.
func splitProperty(line []rune) (key, value []rune) {
	end := 0
	for escaped := false; end < len(line); end++ {
		r := line[end]
		if !escaped && (r == '=' || r == ':' || blank(r)) {
			break
		}
		escaped = r == '\\' && !escaped
	}
	rest := line[end:]
	rest = rest[skip(rest, blank):]
	if len(rest) > 0 && (rest[0] == '=' || rest[0] == ':') {
		rest = rest[1:]
		rest = rest[skip(rest, blank):]
	}
	return line[:end], rest
}

// unescape resolves escapes. \u escapes are UTF-16; half a pair becomes U+FFFD.
func unescape(text []rune) (string, error) {
	var out strings.Builder
	var units []uint16
	flush := func() {
		out.WriteString(string(utf16.Decode(units)))
		units = units[:0]
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			if text[i] != '\\' {
				flush()
				out.WriteRune(text[i])
			}
			continue
		}
		i++
		if text[i] != 'u' {
			flush()
			if n := slices.Index([]rune("tnrf"), text[i]); n >= 0 {
				out.WriteByte("\t\n\r\f"[n])
			} else {
				out.WriteRune(text[i])
			}
			continue
		}
		if i+4 >= len(text) {
			return "", fmt.Errorf("malformed \\uxxxx escape")
		}
		unit, err := strconv.ParseUint(string(text[i+1:i+5]), 16, 16)
		if err != nil {
			return "", fmt.Errorf("malformed \\uxxxx escape")
		}
		units = append(units, uint16(unit))
		i += 4
	}
	flush()
	return out.String(), nil
}
