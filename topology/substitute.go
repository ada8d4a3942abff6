package topology

import (
	"errors"
	"io/fs"
	"regexp/syntax"
	"strings"
)

// substitute replaces ${NAME} by a variable of the environment and ${file:PATH}
// by what a file holds, without the line breaks at its end. $${ stands for ${
// itself; any other dollar is a dollar. What was put in is not looked at again,
// and never shown in a fault.
func (r *reader) substitute(v value) (text string, substituted, ok bool) {
	rest := v.node.Value
	var b strings.Builder
	ok = true
	for {
		i := strings.Index(rest, "${")
		if i < 0 {
			b.WriteString(rest)
			return b.String(), substituted, ok
		}
		if i > 0 && rest[i-1] == '$' {
			b.WriteString(rest[:i-1] + "${")
			rest = rest[i+2:]
			continue
		}
		b.WriteString(rest[:i])
		inner, after, closed := strings.Cut(rest[i+2:], "}")
		if !closed {
			r.fault(v, "close it with }, or write $${ for the two characters themselves", "has a ${ without its }")
			return "", substituted, false
		}
		found, good := r.reference(v, inner)
		b.WriteString(found)
		rest, substituted, ok = after, true, ok && good
		r.substituted++
		r.veiled = append(r.veiled, v.path)
	}
}

// reference looks up what stands between ${ and }.
func (r *reader) reference(v value, inner string) (string, bool) {
	path, isFile := strings.CutPrefix(inner, "file:")
	switch {
	case isFile && path == "":
		r.fault(v, "write ${file:PATH}", "${file:} names no file")
		return "", false
	case isFile:
		data, err := readBounded(r.resolve(path))
		if err != nil {
			r.fault(v, "check the path; a relative one starts at the directory of this file", "${%s} cannot be read: %s", inner, osReason(err))
			return "", false
		}
		return strings.TrimRight(string(data), "\r\n"), true
	case !isVariable(inner):
		r.fault(v, "write ${NAME} or ${file:PATH}, or $${ for the two characters themselves", "${%s} is no name of a variable", inner)
		return "", false
	}
	found, set := r.lookup(inner)
	if !set {
		r.fault(v, "set it, or write the value here", "the environment variable %s is not set", inner)
		return "", false
	}
	return found, true
}

func isVariable(name string) bool {
	for i, c := range name {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// osReason is what the operating system said, without operation and path.
func osReason(err error) string {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return pathError.Err.Error()
	}
	return err.Error()
}

// regexpReason is what is wrong with an expression, without the expression.
func regexpReason(err error) string {
	if syntaxError, ok := errors.AsType[*syntax.Error](err); ok {
		return syntaxError.Code.String() + ": " + syntaxError.Expr
	}
	return err.Error()
}
