package console

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// unknown stands for a figure that nobody knows yet.
const unknown = "–"

// FormatCount writes 1234567 as "1 234 567" (with narrow no-break spaces), and
// a negative count, which means unknown, as a dash.
func FormatCount(n int64) string {
	if n < 0 {
		return unknown
	}
	digits := strconv.FormatInt(n, 10)
	if len(digits) <= 4 {
		return digits
	}
	var out strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			out.WriteRune('\u202f')
		}
		out.WriteRune(d)
	}
	return out.String()
}

// FormatBytes writes a number of bytes with three digits or so: "0 B", "1.5 kB", "210 MB".
func FormatBytes(n float64) string {
	if n < 0 || math.IsNaN(n) || math.IsInf(n, 0) {
		return unknown
	}
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	i := 0
	for n >= 999.5 && i < len(units)-1 {
		n /= 1000
		i++
	}
	if i > 0 && n < 9.95 {
		return fmt.Sprintf("%.1f %s", n, units[i])
	}
	return fmt.Sprintf("%.0f %s", n, units[i])
}

// FormatByteRate writes bytes per second.
func FormatByteRate(perSecond float64) string {
	text := FormatBytes(perSecond)
	if text == unknown {
		return text
	}
	return text + "/s"
}

// FormatRate writes events per second; slow ones with a digit after the point.
func FormatRate(perSecond float64) string {
	switch {
	case perSecond < 0 || math.IsNaN(perSecond) || math.IsInf(perSecond, 0):
		return unknown
	case perSecond == 0 || perSecond >= 9.95:
		return FormatCount(int64(math.Round(perSecond)))
	case perSecond < 0.05:
		return "< 0.1"
	default:
		return fmt.Sprintf("%.1f", perSecond)
	}
}

// FormatSeconds writes a time behind: "0 s", "3 ms", "1.2 s", "5 min", "2 h 3 min", "4 d".
// Negative means unknown.
func FormatSeconds(seconds float64) string {
	switch {
	case seconds < 0 || math.IsNaN(seconds) || math.IsInf(seconds, 0):
		return unknown
	case seconds == 0:
		return "0 s"
	case seconds < 0.9995:
		return fmt.Sprintf("%.0f ms", math.Max(1, math.Round(seconds*1000)))
	case seconds < 9.95:
		return fmt.Sprintf("%.1f s", seconds)
	default:
		return spokenDuration(time.Duration(math.Min(seconds, 1e9) * float64(time.Second)))
	}
}

// spokenDuration writes the one or two greatest units.
func spokenDuration(d time.Duration) string {
	d = max(0, d).Round(time.Second)
	days, hours, minutes, seconds := int(d.Hours())/24, int(d.Hours())%24, int(d.Minutes())%60, int(d.Seconds())%60
	two := func(a int, unitA string, b int, unitB string) string {
		if b == 0 {
			return fmt.Sprintf("%d %s", a, unitA)
		}
		return fmt.Sprintf("%d %s %d %s", a, unitA, b, unitB)
	}
	switch {
	case days > 0:
		return two(days, "d", hours, "h")
	case hours > 0:
		return two(hours, "h", minutes, "min")
	case minutes > 0:
		return two(minutes, "min", seconds, "s")
	default:
		return fmt.Sprintf("%d s", seconds)
	}
}

func countOf(n int) string { return FormatCount(int64(n)) }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return countOf(n) + " " + noun + "s"
}
