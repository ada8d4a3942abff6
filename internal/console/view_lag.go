package console

import (
	"cmp"
	"time"

	"kmirror/mirror"
)

// lossLabel says what a failover now would lose.
func lossLabel(r mirror.RPO, now time.Time) label {
	l := label{Tone: cmp.Or(lagTone(r.Seconds), toneCalm)}
	lost := "nothing"
	switch {
	case r.Records < 0 && r.Unknown > 0:
		lost = "it is not known what"
	case r.Records > 0:
		lost = plural(int(r.Records), "record")
		if r.Bytes >= 0 {
			lost += ", " + FormatLagBytes(r.Lag)
		}
		if r.Seconds >= 0 {
			lost += ", the oldest " + FormatSeconds(r.Seconds) + " old"
		}
	}
	if r.Records >= 0 && r.Unknown > 0 {
		lost += "; of " + plural(r.Unknown, "partition") + " it is not known"
	}
	if r.GroupsBeyond > 0 {
		lost += "; " + plural(r.GroupsBeyond, "group") + " read beyond it"
	}
	switch {
	case r.SourceReachable:
		l.Text = "A failover to " + r.To + " now would lose " + lost + "."
	case r.AsOf.IsZero():
		l.Text, l.Tone = r.From+" has not answered yet: it is not known what a failover to "+r.To+" would lose.", toneWarn
	default:
		l.Text, l.Tone = r.From+" has not answered for "+FormatSeconds(now.Sub(r.AsOf).Seconds())+". By then a failover to "+r.To+" would have lost "+lost+".", toneBad
		if r.NewestMirrored != nil {
			l.Text += " The newest record in " + r.To + " is of " + r.NewestMirrored.UTC().Format("2006-01-02 15:04:05 UTC") + "."
		}
	}
	return l
}

// FormatLagBytes writes the bytes of a lag, ~ before an estimate.
func FormatLagBytes(l mirror.Lag) string {
	if l.BytesEstimated && l.Bytes > 0 {
		return "~" + FormatBytes(float64(l.Bytes))
	}
	return FormatBytes(float64(l.Bytes))
}

// lagTone: seconds behind are the rule that operators have; a minute is worth a look, ten minutes a worry.
func lagTone(seconds float64) string {
	switch {
	case seconds >= 600:
		return toneBad
	case seconds >= 60:
		return toneWarn
	default:
		return ""
	}
}
