package console

import (
	"cmp"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"kmirror/mirror"
)

// maxIncidentRows is how many incidents the page shows; the API has all.
const maxIncidentRows = 15

type incidentsView struct {
	Count  string // of all that are kept and of those of the last day, in words
	Recent string // of the last day, in words; empty: none
	Rows   []incidentView
	More   string
}

type incidentView struct {
	Ago, At, Kind, Tone, Flow, Topic, Place, Times, Detail, Action string
}

// newIncidentsView shows what happened last first.
func newIncidentsView(all []mirror.Incident, now time.Time) incidentsView {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b mirror.Incident) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(b.ID, a.ID))
	})
	var v incidentsView
	if len(all) > 0 {
		recent := summarize(all, now).Recent
		v.Count = countOf(recent) + " in the last day, " + countOf(len(all)) + " kept"
		if recent > 0 {
			v.Recent = plural(recent, "incident") + " in the last day"
		}
	}
	sorted, v.More = firstRows(sorted, maxIncidentRows)
	for _, i := range sorted {
		row := incidentView{
			Ago: spokenDuration(now.Sub(i.Last)) + " ago", At: i.Last.UTC().Format("2006-01-02 15:04:05 UTC"), Kind: i.Kind, Tone: incidentTone(i.Kind),
			Flow: i.Flow, Topic: i.Topic, Detail: shortened(i.Detail), Action: shortened(i.Action),
		}
		if i.Times > 1 {
			row.Times = FormatCount(i.Times) + " times"
		}
		if i.Partition >= 0 {
			row.Place = "partition " + strconv.Itoa(int(i.Partition))
		}
		for _, figure := range []struct {
			name string
			n    int64
		}{{"source offset", i.SourceOffset}, {"target offset", i.TargetOffset}, {"count", i.Count}} {
			if figure.n >= 0 {
				if row.Place != "" {
					row.Place += ", "
				}
				row.Place += figure.name + " " + FormatCount(figure.n)
			}
		}
		v.Rows = append(v.Rows, row)
	}
	return v
}

// maxIncidentText is how much of a text the page shows, in characters; the API has all.
const maxIncidentText = 400

func shortened(text string) string {
	if utf8.RuneCountInString(text) <= maxIncidentText {
		return text
	}
	return string([]rune(text)[:maxIncidentText]) + " …"
}

// incidentTone: what was lost, doubled or stands still wants a look; what was
// prevented, repaired or set aside is told calmly.
func incidentTone(kind string) string {
	switch kind {
	case mirror.KindFenced, mirror.KindConfigDrift, mirror.KindForeignWrite, mirror.KindDeadLetter, mirror.KindSourceDeleted:
		return toneCalm
	default:
		return toneWarn
	}
}
