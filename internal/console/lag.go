package console

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"time"

	"kmirror/checkpoint"
	"kmirror/mirror"
)

// LagAnswer is the body of /api/v1/lag: how far the copy of a flow is behind.
type LagAnswer = mirror.FlowLag

// RPOAnswer is the body of /api/v1/rpo: what a failover of a flow would lose now.
type RPOAnswer = mirror.RPO

// LagQuery says which lag is meant.
type LagQuery struct {
	Flow       string
	Topic      string // of the source; empty: all
	Partitions bool   // of each topic too
}

func (q LagQuery) values() url.Values {
	v := url.Values{"flow": {q.Flow}}
	if q.Topic != "" {
		v.Set("topic", q.Topic)
	}
	if q.Partitions {
		v.Set("partitions", "true")
	}
	return v
}

// parseLagQuery is the inverse of values.
func parseLagQuery(v url.Values) (LagQuery, error) {
	q := LagQuery{Flow: v.Get("flow"), Topic: v.Get("topic")}
	for key := range v {
		switch text := v.Get(key); key {
		case "flow", "topic":
		case "partitions":
			partitions, err := yesOrNo(key, text)
			if err != nil {
				return q, err
			}
			q.Partitions = partitions
		default:
			return q, fmt.Errorf("unknown parameter %q; there are flow, topic, partitions", key)
		}
	}
	return q, nil
}

// keep leaves of a lag what was asked for; it is false when there is no such topic.
func (q LagQuery) keep(lag *mirror.FlowLag) bool {
	if q.Topic != "" {
		lag.Topics = slices.DeleteFunc(lag.Topics, func(t mirror.TopicLag) bool { return t.Topic != q.Topic })
		lag.Total()
		if len(lag.Topics) == 0 {
			return false
		}
	}
	if !q.Partitions {
		lag.Brief()
	}
	return true
}

// flowOf finds a flow in a status, and its source.
func flowOf(s mirror.Status, name string) (flow mirror.FlowStatus, source mirror.ClusterStatus, ok bool) {
	i := slices.IndexFunc(s.Flows, func(f mirror.FlowStatus) bool { return f.Name == name })
	if i < 0 {
		return flow, source, false
	}
	flow = s.Flows[i]
	if at := slices.IndexFunc(s.Clusters, func(c mirror.ClusterStatus) bool { return c.Name == flow.From }); at >= 0 {
		source = s.Clusters[at]
	}
	return flow, source, true
}

// mustName says what is wrong with a request about a flow: err of its parameters,
// or that it names none.
func mustName(r *http.Request, flow string, err error) error {
	if err == nil && flow == "" {
		return fmt.Errorf("the parameter flow is missing, as in %s?flow=east->west", r.URL.Path)
	}
	return err
}

// losses is the RPO of a flow; it is false when there is no such flow.
func losses(s mirror.Status, name string, groups iter.Seq[checkpoint.GroupStatus], now time.Time) (mirror.RPO, bool) {
	flow, source, ok := flowOf(s, name)
	if !ok {
		return mirror.RPO{}, false
	}
	return mirror.RPOOf(flow, s.Life, source, groups, now), true
}

func lag(w http.ResponseWriter, r *http.Request, engine Engine) {
	answerLag(w, r, engine, func(rpo mirror.RPO) any { return rpo.FlowLag })
}

func rpo(w http.ResponseWriter, r *http.Request, engine Engine) {
	answerLag(w, r, engine, func(rpo mirror.RPO) any { return rpo })
}

func answerLag(w http.ResponseWriter, r *http.Request, engine Engine, as func(mirror.RPO) any) {
	q, err := parseLagQuery(r.URL.Query())
	if err := mustName(r, q.Flow, err); err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	groups, ok := engine.Groups(q.Flow)
	var rpo mirror.RPO
	if ok {
		rpo, ok = losses(engine.Status(), q.Flow, groups, time.Now().UTC())
	}
	if !ok {
		writeError(w, http.StatusNotFound, fmt.Sprintf("no flow %q here", q.Flow))
		return
	}
	if !q.keep(&rpo.FlowLag) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("no topic %q in flow %s", q.Topic, q.Flow))
		return
	}
	writeJSON(w, http.StatusOK, as(rpo))
}

// Lag asks how far the copy of a flow is behind; an *AnswerError with NotFound
// when the daemon has no such flow or topic.
func (c *Client) Lag(ctx context.Context, q LagQuery) (LagAnswer, error) {
	var answer LagAnswer
	err := c.get(ctx, "/api/v1/lag?"+q.values().Encode(), &answer)
	return answer, err
}

// RPO asks what a failover of a flow would lose now; errors are those of Lag.
func (c *Client) RPO(ctx context.Context, q LagQuery) (RPOAnswer, error) {
	var answer RPOAnswer
	err := c.get(ctx, "/api/v1/rpo?"+q.values().Encode(), &answer)
	return answer, err
}
