package console

import (
	"strings"
	"time"

	"kmirror/mirror"
)

// ErrorAnswer is the body of every API answer that is not 200.
type ErrorAnswer struct {
	Error string `json:"error"`
}

// StatusAnswer is the body of /api/v1/status.
type StatusAnswer struct {
	mirror.Status

	Config    *ConfigState    `json:"config,omitempty"`
	Incidents IncidentSummary `json:"incidents"`
}

func statusAnswer(o Options, now time.Time) StatusAnswer {
	answer := StatusAnswer{Status: o.Engine.Status(), Incidents: summarize(o.Engine.Incidents(0), now)}
	if o.Config != nil {
		state := o.Config.State()
		answer.Config = &state
	}
	return answer
}

func listWords(words []string) string { return strings.Join(words, ", ") }
