package mm2

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// posix are Java's names of classes of ASCII characters that RE2 spells otherwise.
func posix() map[string]string {
	return map[string]string{
		"Lower": "a-z", "Upper": "A-Z", "ASCII": `\x00-\x7F`, "Alpha": "a-zA-Z", "Digit": "0-9", "Alnum": "a-zA-Z0-9",
		"Punct": "!-/:-@\\[-`{-~", "Graph": "!-~", "Print": " -~", "Blank": ` \t`, "Cntrl": `\x00-\x1F\x7F`, "XDigit": "0-9a-fA-F", "Space": ` \t\n\x0B\f\r`,
	}
}

// RE2 translates a regular expression of Java into one of RE2 that matches the same
// names. Its error says what has no counterpart.
func RE2(java string) (string, error) {
	var out strings.Builder
	class := 0 // depth of [ ]
	for i := 0; i < len(java); i++ {
		c, rest := java[i], java[i:]
		switch {
		case strings.HasPrefix(rest, `\Q`):
			quoted, _, _ := strings.Cut(rest[2:], `\E`)
			out.WriteString(regexp.QuoteMeta(quoted))
			i += min(len(rest), len(quoted)+4) - 1
		case c == '\\' && i+1 < len(java):
			n, text, err := escape(rest, class > 0)
			if err != nil {
				return "", err
			}
			out.WriteString(text)
			i += n - 1
		case class > 0 && strings.HasPrefix(rest, "&&"):
			return "", fmt.Errorf("intersections of character classes (&&)")
		case class > 0 && c == '[':
			return "", fmt.Errorf("character classes in character classes; write one class")
		case c == '[':
			class++
			out.WriteByte(c)
			if strings.HasPrefix(rest, "[^") {
				out.WriteByte('^')
				i++
			}
		case c == ']' && class > 0:
			class--
			out.WriteByte(c)
		case strings.HasPrefix(rest, "(?=") || strings.HasPrefix(rest, "(?!"):
			return "", fmt.Errorf("a look ahead (%s...); what must not match goes to an exclude list", rest[:3])
		case strings.HasPrefix(rest, "(?<=") || strings.HasPrefix(rest, "(?<!"):
			return "", fmt.Errorf("a look behind (%s...); what must not match goes to an exclude list", rest[:4])
		case strings.HasPrefix(rest, "(?>"):
			return "", fmt.Errorf("an atomic group (?>...); write (?:...) if nothing depends on it")
		default:
			out.WriteByte(c)
		}
	}
	if _, err := regexp.Compile(out.String()); err != nil {
		what := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
		if strings.HasPrefix(what, "invalid nested repetition") {
			what = "a possessive quantifier: " + what
		}
		return "", errors.New(what)
	}
	return out.String(), nil
}

// escape translates what begins with a backslash; n is how much of the text it is.
func escape(text string, class bool) (n int, translated string, err error) {
	switch c := text[1]; {
	case c == 'p' || c == 'P':
		name, _, closed := strings.Cut(text[min(len(text), 3):], "}")
		if len(text) < 4 || text[2] != '{' || !closed {
			return 2, text[:2], nil
		}
		n = len(name) + 4
		set, known := posix()[strings.TrimPrefix(name, "Is")]
		switch {
		case !known:
			return n, text[:n], nil // a Unicode category; compiling tells
		case class && c == 'P':
			return n, "", fmt.Errorf(`\P{%s} in a character class`, name)
		case class:
			return n, set, nil
		case c == 'P':
			return n, "[^" + set + "]", nil
		}
		return n, "[" + set + "]", nil
	case c >= '1' && c <= '9' || c == 'k':
		return 2, "", fmt.Errorf(`a reference to a group (\%c)`, c)
	case c == 'Z' || c == 'z':
		return 2, `\z`, nil
	case strings.IndexByte("GRXhHVN", c) >= 0:
		return 2, "", fmt.Errorf(`\%c`, c)
	case c == 'e':
		return 2, `\x1B`, nil
	case c == 'u' && len(text) >= 6:
		return 6, `\x{` + text[2:6] + `}`, nil
	}
	return 2, text[:2], nil
}
