package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/console"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

func TestParsePosition(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	at := func(text string) int64 {
		when, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return when.UnixMilli()
	}
	for text, want := range map[string]position{
		"earliest": {kind: atEarliest}, "latest": {kind: atLatest}, "0": {atOffset, 0}, "42": {atOffset, 42}, "-5": {atBeforeEnd, 5},
		"2026-01-31T12:00:00Z": {atTime, at("2026-01-31T12:00:00Z")}, "2026-01-31": {atTime, at("2026-01-31T00:00:00Z")},
		"2026-01-31T12:00": {atTime, at("2026-01-31T12:00:00Z")}, "15m": {atTime, at("2026-05-01T11:45:00Z")}, "1h30m ago": {atTime, at("2026-05-01T10:30:00Z")},
	} {
		if got, err := parsePosition(text, now); err != nil || got != want {
			t.Errorf("parsePosition(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "soon", "-", "1.5", "99999999999999999999", "2026-13-01"} {
		if got, err := parsePosition(text, now); err == nil {
			t.Errorf("parsePosition(%q) = %v, want an error", text, got)
		}
	}
}

func TestResolvePosition(t *testing.T) {
	for _, c := range []struct {
		p                  position
		start, end, byTime int64
		want               int64
		fails              bool
	}{
		{p: position{kind: atEarliest}, start: 5, end: 9, want: 5},
		{p: position{kind: atLatest}, start: 5, end: 9, want: 9},
		{p: position{atBeforeEnd, 3}, start: 5, end: 9, want: 6},
		{p: position{atBeforeEnd, 30}, start: 5, end: 9, want: 5},
		{p: position{atOffset, 7}, start: 5, end: 9, want: 7},
		{p: position{atOffset, 9}, start: 5, end: 9, want: 9},
		{p: position{atOffset, 10}, start: 5, end: 9, fails: true},
		{p: position{atOffset, 4}, start: 5, end: 9, fails: true},
		{p: position{atTime, 1}, start: 5, end: 9, byTime: 8, want: 8},
		{p: position{atTime, 1}, start: 5, end: 9, byTime: -1, want: 9},
	} {
		got, err := c.p.resolve(c.start, c.end, c.byTime)
		if got != c.want || (err != nil) != c.fails {
			t.Errorf("%v in %d..%d: %d, %v, want %d", c.p, c.start, c.end, got, err, c.want)
		}
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 100)
	for name, c := range map[string]struct {
		text, separator string
		emptyNull       bool
		want            []keyValue
		fault           string
	}{
		"values":               {text: "a\nb\n", want: []keyValue{{nil, []byte("a"), 1}, {nil, []byte("b"), 2}}},
		"no newline at end":    {text: "a\nb", want: []keyValue{{nil, []byte("a"), 1}, {nil, []byte("b"), 2}}},
		"empty value":          {text: "\n", want: []keyValue{{nil, []byte{}, 1}}},
		"empty as null":        {text: "k:\n", separator: ":", emptyNull: true, want: []keyValue{{[]byte("k"), nil, 1}}},
		"key":                  {text: "k:v:w\n", separator: ":", want: []keyValue{{[]byte("k"), []byte("v:w"), 1}}},
		"long separator":       {text: "k=>v\n", separator: "=>", want: []keyValue{{[]byte("k"), []byte("v"), 1}}},
		"carriage return":      {text: "a\r\n", want: []keyValue{{nil, []byte("a\r"), 1}}},
		"nothing":              {text: ""},
		"no separator in line": {text: "a:b\nc\n", separator: ":", want: []keyValue{{[]byte("a"), []byte("b"), 1}}, fault: "line 2 has no key separator"},
		"at the limit":         {text: long + "\n", want: []keyValue{{nil, []byte(long), 1}}},
		"over the limit":       {text: "a\n" + long + "y\n", want: []keyValue{{nil, []byte("a"), 1}}, fault: "line 2 is longer than 100 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			lines := newLineReader(strings.NewReader(c.text), c.separator, c.emptyNull, 100)
			var got []keyValue
			var err error
			for err == nil {
				var one keyValue
				if one, err = lines.next(); err == nil {
					got = append(got, one)
				}
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(keyValue{})); diff != "" {
				t.Errorf("records differ (-want +got):\n%s", diff)
			}
			if c.fault == "" && !errors.Is(err, io.EOF) || c.fault != "" && !strings.Contains(err.Error(), c.fault) {
				t.Errorf("ended with %v, want %q", err, c.fault)
			}
		})
	}
}

func TestRecordFormats(t *testing.T) {
	r := record{topic: "orders", partition: 2, offset: 7, millis: 1767225600123, key: []byte("k\x1b[2J"), value: []byte("v"), headers: []header{{"h", []byte{0xff}}, {"n", nil}}}
	tombstone := record{topic: "orders", key: []byte("k"), value: nil}
	for _, c := range []struct {
		format   string
		terminal bool
		r        record
		want     string
	}{
		{"value", false, r, "v\n"},
		{"value", false, tombstone, "\n"},
		{"kv", false, r, "k\x1b[2J|v\n"},
		{"kv", true, r, `k\x1b[2J|v` + "\n"},
		{"json", false, r, `{"topic":"orders","partition":2,"offset":7,"timestamp":1767225600123,"time":"2026-01-01T00:00:00.123Z","key":"k\u001b[2J","value":"v","headers":[{"key":"h","value":null,"value_base64":"/w=="},{"key":"n","value":null}]}` + "\n"},
		{"json", false, tombstone, `{"topic":"orders","partition":0,"offset":0,"timestamp":0,"time":"1970-01-01T00:00:00.000Z","key":"k","value":null}` + "\n"},
	} {
		var out bytes.Buffer
		w, err := newRecordWriter(&out, c.format, "|", c.terminal)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.write(c.r), w.flush()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, out.String()); diff != "" {
			t.Errorf("%s differs (-want +got):\n%s", c.format, diff)
		}
	}
}

func TestCleanShowsNoControlCharacters(t *testing.T) {
	for in, want := range map[string]string{
		"orders": "orders", "grün": "grün", "\x1b[31mred": `\x1b[31mred`, "a\nb": `a\x0ab`, "\xff\xfe": `\xff\xfe`, "x\u202ey": `x\u202ey`, "": "", "\u009b": `\u009b`,
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	tab := newTable("NAME", ">COUNT", "")
	tab.row("äöü", 7, "note")
	tab.row("evil\x07", 1234567)
	var out bytes.Buffer
	if err := tab.write(&out, "  "); err != nil {
		t.Fatal(err)
	}
	const want = "  NAME        COUNT\n  äöü             7  note\n  evil\\x07  1234567\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table differs (-want +got):\n%s", diff)
	}
}

func TestQuoteWord(t *testing.T) {
	for in, want := range map[string]string{"a/b.yaml": "a/b.yaml", "my file": "'my file'", "": "''", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		if got := quoteWord(in); got != want {
			t.Errorf("quoteWord(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	for _, c := range []struct{ machine, container, want int64 }{{0, 0, 0}, {4 << 30, 0, 3 << 30}, {4 << 30, 1 << 30, 3 << 28}, {1 << 30, 4 << 30, 3 << 28}, {0, 1 << 30, 3 << 28}} {
		if got := memoryLimit(c.machine, c.container); got != c.want {
			t.Errorf("memoryLimit(%d, %d) = %d, want %d", c.machine, c.container, got, c.want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{t.Context(), nil, exitOK},
		{t.Context(), errors.New("disk full"), exitFailure},
		{t.Context(), topology.Faults{{Problem: "x"}}, exitUsage},
		{t.Context(), errors.Join(withCode(exitUnreachable, errors.New("x")), topology.Faults{{Problem: "x"}}), exitUsage},
		{t.Context(), fmt.Errorf("a: %w", withCode(exitNotFound, errors.New("x"))), exitNotFound},
		{t.Context(), &console.UnreachableError{Err: errors.New("x")}, exitUnreachable},
		{t.Context(), &kafka.UnreachableError{}, exitUnreachable},
		{t.Context(), &net.OpError{Op: "dial", Err: syscall.ECONNRESET}, exitUnreachable},
		{t.Context(), &net.OpError{Op: "listen", Err: syscall.EACCES}, exitFailure},
		{t.Context(), &net.OpError{Op: "listen", Err: syscall.EADDRINUSE}, exitBusy},
		{t.Context(), syscall.ENOSPC, exitFailure},
		{t.Context(), kerr.UnknownTopicOrPartition, exitNotFound},
		{t.Context(), context.DeadlineExceeded, exitUnreachable},
		{t.Context(), context.Canceled, exitFailure},
		{stopped, fmt.Errorf("read: %w", context.Canceled), exitInterrupted},
		{stopped, errors.New("disk full"), exitFailure},
	} {
		if got := codeOf(c.ctx, c.err); got != c.want {
			t.Errorf("codeOf(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}
