package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// position is a place in a partition as it is written after --from.
type position struct {
	kind  positionKind
	value int64 // an offset, a number of records before the end, or milliseconds since 1970
}

type positionKind int8

const (
	atEarliest  positionKind = iota
	atLatest                 // only what comes from now on
	atOffset                 // value is the offset
	atBeforeEnd              // value records before the end
	atTime                   // the first record at or after value
)

// parsePosition reads earliest, latest, an offset, -N (the last N), or what
// parseWhen reads.
func parsePosition(text string, now time.Time) (position, error) {
	switch text {
	case "earliest", "beginning":
		return position{kind: atEarliest}, nil
	case "latest", "end":
		return position{kind: atLatest}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		if strings.HasPrefix(text, "-") {
			return position{atBeforeEnd, -n}, nil
		}
		return position{atOffset, n}, nil
	}
	at, err := parseWhen("--from", text, now)
	if err != nil {
		return position{}, withCode(exitUsage, fmt.Errorf("--from %q: it is earliest, latest, an offset, -N for the last N, %s", text, whenForms))
	}
	return position{atTime, at.UnixMilli()}, nil
}

// needsTime tells whether the cluster has to be asked for an offset.
func (p position) needsTime() bool { return p.kind == atTime }

// resolve finds the offset in a partition that holds start to end; byTime is
// what the cluster said about the time, -1 for none.
func (p position) resolve(start, end, byTime int64) (int64, error) {
	switch p.kind {
	case atEarliest:
		return start, nil
	case atLatest:
		return end, nil
	case atBeforeEnd:
		return max(start, end-p.value), nil
	case atTime:
		if byTime < 0 {
			return end, nil
		}
		return byTime, nil
	case atOffset:
		if p.value < start || p.value > end {
			return 0, fmt.Errorf("offset %d is not there: the log runs from %d to %d", p.value, start, end)
		}
		return p.value, nil
	}
	return 0, fmt.Errorf("position %d", p.kind)
}
