package console

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"kmirror/mirror"
)

// How many incidents one answer has.
const (
	usualIncidents = 100
	maxIncidents   = 1000
)

// IncidentsAnswer is the body of /api/v1/incidents: those asked for, oldest first.
type IncidentsAnswer struct {
	// Newest is the id of the newest incident of all, 0 while there is none: ask
	// with after=Newest for what comes next.
	Newest uint64 `json:"newest"`
	// Total counts the incidents that are kept and match, Incidents holds the newest of them.
	Total     int               `json:"total"`
	Incidents []mirror.Incident `json:"incidents"`
}

// IncidentQuery says which incidents are meant. What is empty asks for all.
type IncidentQuery struct {
	After             uint64    // id
	Since             time.Time // of the last occurrence
	Flow, Topic, Kind string
	Limit             int // the newest; 0: 100
}

func (q IncidentQuery) values() url.Values {
	v := url.Values{}
	if q.After > 0 {
		v.Set("after", strconv.FormatUint(q.After, 10))
	}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	for key, text := range map[string]string{"flow": q.Flow, "topic": q.Topic, "kind": q.Kind} {
		if text != "" {
			v.Set(key, text)
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// parseQuery is the inverse of values.
func parseQuery(v url.Values) (IncidentQuery, error) {
	q := IncidentQuery{Flow: v.Get("flow"), Topic: v.Get("topic"), Kind: v.Get("kind"), Limit: usualIncidents}
	var err error
	for key := range v {
		text := v.Get(key)
		switch key {
		case "flow", "topic", "kind":
		case "after":
			if q.After, err = strconv.ParseUint(text, 10, 64); err != nil {
				return q, fmt.Errorf("after=%q is no id of an incident", text)
			}
		case "since":
			if q.Since, err = time.Parse(time.RFC3339Nano, text); err != nil {
				return q, fmt.Errorf("since=%q is no time as in 2026-01-31T12:00:00Z", text)
			}
		case "limit":
			if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > maxIncidents {
				return q, fmt.Errorf("limit=%q is no number from 1 to %d", text, maxIncidents)
			}
		default:
			return q, fmt.Errorf("unknown parameter %q; there are after, since, flow, topic, kind, limit", key)
		}
	}
	return q, nil
}

func (q IncidentQuery) matches(i mirror.Incident) bool {
	return i.ID > q.After && !i.Last.Before(q.Since) &&
		(q.Flow == "" || q.Flow == i.Flow) && (q.Topic == "" || q.Topic == i.Topic) && (q.Kind == "" || q.Kind == i.Kind)
}

func answerIncidents(all []mirror.Incident, q IncidentQuery) IncidentsAnswer {
	answer := IncidentsAnswer{Incidents: []mirror.Incident{}}
	for _, i := range all {
		answer.Newest = max(answer.Newest, i.ID)
		if q.matches(i) {
			answer.Incidents = append(answer.Incidents, i)
		}
	}
	answer.Total = len(answer.Incidents)
	answer.Incidents = answer.Incidents[max(0, answer.Total-q.Limit):]
	return answer
}

func incidents(w http.ResponseWriter, r *http.Request, engine Engine) {
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, answerIncidents(engine.Incidents(0), q))
}

// IncidentSummary is what a status says of incidents.
type IncidentSummary struct {
	Kept   int              `json:"kept"`             // that can still be asked for
	Recent int              `json:"recent"`           // that occurred within the last day
	Newest *mirror.Incident `json:"newest,omitempty"` // by its last occurrence
}

func summarize(all []mirror.Incident, now time.Time) IncidentSummary {
	s := IncidentSummary{Kept: len(all)}
	for i := range all {
		if now.Sub(all[i].Last) < 24*time.Hour {
			s.Recent++
		}
		if s.Newest == nil || !all[i].Last.Before(s.Newest.Last) {
			s.Newest = &all[i]
		}
	}
	return s
}
