package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// whenForms is what every flag that takes a time says about it.
const whenForms = "a time such as 2026-01-31, 2026-01-31T12:00 (both in the local time zone, see TZ) or 2026-01-31T12:00:00Z, or how long ago: 30m, 2h, 7d"

// parseWhen reads a moment as all commands take it: see whenForms. A duration may
// have a sign before it or "ago" behind it. A time without a zone is in that of now.
func parseWhen(flag, text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly, time.DateTime} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	if d, ok := parseAgo(strings.TrimSuffix(strings.TrimPrefix(text, "-"), " ago")); ok {
		return now.Add(-d), nil
	}
	return time.Time{}, withCode(exitUsage, fmt.Errorf("%s %q: it is %s", flag, text, whenForms))
}

// parseAgo reads a duration, in which days may stand before the hours.
func parseAgo(text string) (time.Duration, bool) {
	var sum time.Duration
	if days, rest, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if text = rest; err != nil || !(n >= 0 && n < 100_000) { // a duration has 292 years
			return 0, false
		}
		if sum = time.Duration(n * float64(24*time.Hour)); rest == "" {
			return sum, true
		}
		if strings.ContainsAny(rest, "+-") {
			return 0, false
		}
	}
	d, err := time.ParseDuration(text)
	return sum + d, err == nil && d >= 0 && sum <= math.MaxInt64-d
}
