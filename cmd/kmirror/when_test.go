package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Every command reads a time in the same forms, and without a zone in the local one.
func TestParseWhen(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, berlin)
	for text, want := range map[string]string{
		"2026-01-31T12:00:00Z": "2026-01-31T13:00:00+01:00", "2026-01-31T12:00:00.5+02:00": "2026-01-31T11:00:00.5+01:00",
		"2026-01-31": "2026-01-31T00:00:00+01:00", "2026-01-31T12:00": "2026-01-31T12:00:00+01:00",
		"2026-01-31T12:00:30": "2026-01-31T12:00:30+01:00", "2026-01-31 12:00:30": "2026-01-31T12:00:30+01:00",
		"15m": "2026-05-01T11:45:00+01:00", "1h30m ago": "2026-05-01T10:30:00+01:00", "+5m": "2026-05-01T11:55:00+01:00", "-5m": "2026-05-01T11:55:00+01:00", "0s": "2026-05-01T12:00:00+01:00", "2540000h": "1736-07-27T04:00:00+01:00",
		"7d": "2026-04-24T12:00:00+01:00", "-7d": "2026-04-24T12:00:00+01:00", "1d12h": "2026-04-30T00:00:00+01:00", "1.5d": "2026-04-30T00:00:00+01:00", "0d": "2026-05-01T12:00:00+01:00",
	} {
		got, err := parseWhen("--since", text, now)
		if err != nil || got.In(berlin).Format(time.RFC3339Nano) != want {
			t.Errorf("%q is %v, %v, want %v", text, got, err, want)
		}
		position, err := parsePosition(text, now)
		if diff := cmp.Diff(got.UnixMilli(), position.value); err != nil || position.kind != atTime || diff != "" {
			t.Errorf("as a position %q is %v, %v: %s", text, position, err, diff)
		}
	}
	for _, text := range []string{"", "-", "d", "-d", "--5m", "soon", "yesterday", "5", "7d5", "5m7d", "1d-5m", "1d+5m", "1e300d", "NaNd", "Infd", "99999999h", "99999d2000000h", "99999d2540000h", "2026-13-01", "2026-01-31T25:00", "5m later"} {
		if got, err := parseWhen("--since", text, now); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		} else if code := codeOf(t.Context(), err); code != exitUsage {
			t.Errorf("%q: %v has exit code %d", text, err, code)
		}
	}
}
