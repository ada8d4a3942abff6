package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// writeJSON writes one value, indented, for `-o json`.
func (a *app) writeJSON(value any) error {
	encoder := json.NewEncoder(a.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// wantsJSON tells whether `-o json` was given.
func (a *app) wantsJSON() bool { return a.output == "json" }

// A table is text in columns. A column whose title begins with '>' stands to the right.
type table struct {
	titles []string
	right  []bool
	rows   [][]string
}

func newTable(titles ...string) *table {
	t := &table{}
	for _, title := range titles {
		name, right := strings.CutPrefix(title, ">")
		t.titles, t.right = append(t.titles, name), append(t.right, right)
	}
	return t
}

func (t *table) row(cells ...any) {
	row := make([]string, len(t.titles))
	for i := range row {
		if i < len(cells) {
			row[i] = clean(fmt.Sprint(cells[i]))
		}
	}
	t.rows = append(t.rows, row)
}

// write writes the table, every line behind indent, without trailing blanks.
func (t *table) write(w io.Writer, indent string) error {
	width := make([]int, len(t.titles))
	for _, row := range append([][]string{t.titles}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for _, row := range append([][]string{t.titles}, t.rows...) {
		var line strings.Builder
		line.WriteString(indent)
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if t.right[i] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
			line.WriteString("  ")
		}
		out.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// clean makes what a stranger named safe to show on a terminal: control
// characters and broken UTF-8 appear as escapes.
func clean(s string) string { return cleanBut(s, "") }

// cleanLines is clean, but for newlines and tabs, which text may have.
func cleanLines(s string) string { return cleanBut(s, "\n\t") }

func cleanBut(s, kept string) string {
	unsafe := func(r rune) bool { return unsafeRune(r) && !strings.ContainsRune(kept, r) }
	if !strings.ContainsFunc(s, unsafe) {
		return s
	}
	var out strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, s[0])
		case !unsafe(r):
			out.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&out, `\x%02x`, r)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
		s = s[size:]
	}
	return out.String()
}

// unsafeRune: what could move the cursor, change the direction of text, or is no text at all.
func unsafeRune(r rune) bool {
	return unicode.IsControl(r) || r == utf8.RuneError || unicode.Is(unicode.Bidi_Control, r)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// offset writes an offset or count, a dash if it is not known.
func offset(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
