package console_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"kmirror/internal/console"
	"kmirror/mirror"
	"kmirror/topology"
)

// helm remembers what was steered.
type helm struct {
	did []string
	err error
}

func (h *helm) Pause(_ context.Context, flow, topic string) error {
	h.did = append(h.did, "pause "+flow+" "+topic)
	return h.err
}

func (h *helm) Resume(_ context.Context, flow, topic string, o mirror.ResumeOptions) error {
	h.did = append(h.did, "resume "+flow+" "+topic+" "+string('0'+o.Partition)+" "+o.Accept)
	return h.err
}

func (h *helm) Reload(_ context.Context, dryRun bool) (console.ReloadAnswer, error) {
	h.did = append(h.did, "reload")
	if h.err != nil {
		return console.ReloadAnswer{}, h.err
	}
	return console.ReloadAnswer{Path: "/etc/mirror.yaml", DryRun: dryRun, Taken: !dryRun, Changes: []topology.Change{{Path: "http", Old: "a", New: "b"}}}, nil
}

func (h *helm) State() console.ConfigState {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	return console.ConfigState{Path: "/etc/mirror.yaml", Taken: at, Refused: &at, Error: "line 4 " + hostile, Waiting: []string{"http"}}
}

func steerable(t *testing.T, h *helm) http.Handler {
	t.Helper()
	s, err := console.New(console.Options{Engine: busyEngine(), Steering: h, Config: h, Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return s.Handler()
}

// send is one request as a peer at an address would send it.
func send(handler http.Handler, method, path, body, peer string, headers map[string]string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = peer
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 7070}))
	r.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

const here = "127.0.0.1:40000"

// Nothing but a program on the daemon's machine steers it.
func TestWhoMaySteer(t *testing.T) {
	const path = "/api/v1/flows/east-%3Ewest/pause"
	for name, c := range map[string]struct {
		peer    string
		headers map[string]string
		code    int
	}{
		"a program here":                    {here, nil, 200},
		"a program here, over IPv6":         {"[::1]:40000", nil, 200},
		"a program here, by the outer name": {"10.0.0.5:40000", nil, 200},
		"another machine":                   {"10.0.0.6:40000", nil, 403},
		"nobody knows":                      {"@", nil, 403},
		"a proxy here":                      {here, map[string]string{"X-Forwarded-For": "10.0.0.6"}, 403},
		"another proxy here":                {here, map[string]string{"Forwarded": "for=10.0.0.6"}, 403},
		"a web page":                        {here, map[string]string{"Origin": "https://example.org"}, 403},
		"a page of our own":                 {here, map[string]string{"Origin": "http://127.0.0.1:7070", "Sec-Fetch-Site": "same-origin"}, 403},
		"a page without a name":             {here, map[string]string{"Origin": "null"}, 403},
		"a link on a page":                  {here, map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		"a form":                            {here, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, 415},
		"a form that says text":             {here, map[string]string{"Content-Type": "text/plain"}, 415},
	} {
		t.Run(name, func(t *testing.T) {
			h := &helm{}
			w := send(steerable(t, h), "POST", path, `{"topic":"orders"}`, c.peer, c.headers)
			if w.Code != c.code {
				t.Errorf("code %d: %s, want %d", w.Code, w.Body, c.code)
			}
			if did := len(h.did) > 0; did != (c.code == 200) {
				t.Errorf("code %d, and steered: %v", w.Code, h.did)
			}
			if w.Header().Get("X-Frame-Options") != "DENY" || w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("headers %v", w.Header())
			}
		})
	}
	for _, method := range []string{"GET", "PUT", "DELETE", "OPTIONS", "PATCH"} {
		h := &helm{}
		if w := send(steerable(t, h), method, path, `{}`, here, nil); w.Code == 200 || len(h.did) > 0 {
			t.Errorf("%s: code %d, steered %v", method, w.Code, h.did)
		}
	}
}

func TestSteering(t *testing.T) {
	for _, c := range []struct {
		path, body string
		err        error
		code       int
		says, did  string
	}{
		{"flows/east->west/pause", `{}`, nil, 200, `"done":true`, "pause east->west "},
		{"flows/east->west/pause", `{"topic":"orders"}`, nil, 200, `"done":true`, "pause east->west orders"},
		{"flows/west->east/pause", `{}`, nil, 404, "no flow", ""},
		{"flows/east->west/pause", `{"topics":"orders"}`, nil, 400, "topics", ""},
		{"flows/east->west/pause", `{} {}`, nil, 400, "behind the value", ""},
		{"flows/east->west/pause", ``, nil, 400, "cannot be read", ""},
		{"flows/east->west/pause", `{"topic":"` + strings.Repeat("x", 70_000) + `"}`, nil, 400, "too large", ""},
		{"flows/east->west/pause", `{"topic":"nope"}`, errors.New("does not mirror nope"), 404, "does not mirror nope", "pause east->west nope"},
		{"flows/east->west/pause", `{}`, errors.New("cannot be asked"), 409, "cannot be asked", "pause east->west "},
		{"flows/east->west/pause", `{}`, context.DeadlineExceeded, 504, "deadline", "pause east->west "},
		{"flows/east->west/resume", `{}`, nil, 200, `"done":true`, "resume east->west  / "},
		{"flows/east->west/resume", `{"topic":"gone","partition":4}`, nil, 404, "no partition 4", ""},
		{"flows/east->west/resume", `{"topic":"gone","partition":-4}`, nil, 400, "from 0", ""},
		{"flows/east->west/resume", `{"partition":4}`, nil, 400, "of which topic", ""},
		{"flows/east->west/resume", `{"accept":"retention-loss"}`, nil, 400, "of which topic", ""},
		{"flows/east->west/resume", `{"topic":"t","accept":"everything"}`, nil, 400, "retention-loss, source-truncated", ""},
		{"flows/east->west/resume", `{"topic":"t","accept":"retention-loss"}`, nil, 200, `"done":true`, "resume east->west t / retention-loss"},
		{"reload", `{"dry_run":true}`, nil, 200, `"taken":false`, "reload"},
		{"reload", `{}`, nil, 200, `"taken":true,"changes":[{"path":"http","old":"a","new":"b","live":false}]`, "reload"},
		{"reload", `{}`, errors.New("disk on fire"), 500, "disk on fire", "reload"},
		{"flows/east->west/stop", `{}`, nil, 405, "only GET and HEAD", ""},
	} {
		h := &helm{err: c.err}
		w := send(steerable(t, h), "POST", "/api/v1/"+strings.ReplaceAll(c.path, ">", "%3E"), c.body, here, nil)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %.80s: code %d: %s; want %d with %q", c.path, c.body, w.Code, w.Body, c.code, c.says)
		}
		if got := strings.Join(h.did, "; "); got != c.did {
			t.Errorf("%s %.80s: did %q, want %q", c.path, c.body, got, c.did)
		}
	}
}

// The client says what the server understands, over a real connection.
func TestClientSteers(t *testing.T) {
	h := &helm{}
	server := httptest.NewServer(steerable(t, h))
	defer server.Close()
	client, ctx := console.NewClient(server.Listener.Addr().String()), t.Context()
	if note, err := client.Pause(ctx, "east->west", ""); err != nil || note != "" {
		t.Errorf("pause: %q, %v", note, err)
	}
	if note, err := client.Resume(ctx, "east->west", "a/b", mirror.ResumeOptions{Partition: -1, Accept: "retention-loss"}); err != nil || !strings.Contains(note, "no topic a/b yet") {
		t.Errorf("resume: %q, %v", note, err)
	}
	if diff := cmp.Diff([]string{"pause east->west ", "resume east->west a/b / retention-loss"}, h.did); diff != "" {
		t.Errorf("steered (-want +got):\n%s", diff)
	}
	if answer, err := client.Reload(ctx, true); err != nil || !answer.DryRun || answer.Taken || len(answer.Changes) != 1 || answer.Changes[0].Live {
		t.Errorf("reload: %+v, %v", answer, err)
	}
	status, err := client.Status(ctx)
	if err != nil || status.Config == nil || status.Config.Refused == nil || status.Config.Waiting[0] != "http" {
		t.Errorf("status: %+v, %v", status.Config, err)
	}
	var answer *console.AnswerError
	if _, err := client.Pause(ctx, "east->moon", ""); !errors.As(err, &answer) || !answer.NotFound() {
		t.Errorf("pause of no flow: %v", err)
	}
}

func TestIncidents(t *testing.T) {
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	e := busyEngine()
	for n, kind := range []string{mirror.KindRetentionLoss, mirror.KindDeadLetter, mirror.KindDeadLetter, mirror.KindFenced} {
		e.incidents = append(e.incidents, mirror.Incident{
			ID: uint64(n + 1), Time: at, Last: at.Add(time.Duration(n) * time.Minute), Flow: "east->west", Topic: []string{"orders", "bills"}[n%2], Kind: kind, Times: 1,
			Partition: 3, SourceOffset: 10, TargetOffset: -1, Count: 5, Detail: hostile, Action: hostile,
		})
	}
	e.incidents[0].Last = at.Add(-30 * time.Hour)
	client := console.NewClient(serve(t, e).Listener.Addr().String())
	for name, c := range map[string]struct {
		query console.IncidentQuery
		want  []uint64
		total int
	}{
		"all":          {console.IncidentQuery{}, []uint64{1, 2, 3, 4}, 4},
		"newest two":   {console.IncidentQuery{Limit: 2}, []uint64{3, 4}, 4},
		"what is new":  {console.IncidentQuery{After: 3}, []uint64{4}, 1},
		"since a time": {console.IncidentQuery{Since: at.Add(2 * time.Minute)}, []uint64{3, 4}, 2},
		"of a topic":   {console.IncidentQuery{Topic: "bills"}, []uint64{2, 4}, 2},
		"of a kind":    {console.IncidentQuery{Flow: "east->west", Kind: mirror.KindDeadLetter}, []uint64{2, 3}, 2},
		"of no flow":   {console.IncidentQuery{Flow: "west->east"}, []uint64{}, 0},
	} {
		answer, err := client.Incidents(t.Context(), c.query)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		ids := []uint64{}
		for _, i := range answer.Incidents {
			ids = append(ids, i.ID)
		}
		if diff := cmp.Diff(c.want, ids); diff != "" || answer.Total != c.total || answer.Newest != 4 {
			t.Errorf("%s: total %d, newest %d (-want +got):\n%s", name, answer.Total, answer.Newest, diff)
		}
	}
	for query, says := range map[string]string{"after=x": "no id", "since=yesterday": "no time", "limit=0": "1 to 1000", "limit=5000": "1 to 1000", "sort=asc": "unknown parameter"} {
		if response, body := get(t, "GET", serve(t, e).URL+"/api/v1/incidents?"+query); response.StatusCode != 400 || !strings.Contains(body, says) {
			t.Errorf("%s: %d %s", query, response.StatusCode, body)
		}
	}
	status, err := client.Status(t.Context())
	if err != nil || status.Incidents.Kept != 4 || status.Incidents.Recent != 3 || status.Incidents.Newest == nil || status.Incidents.Newest.ID != 4 {
		t.Errorf("status: %+v, %v", status.Incidents, err)
	}
}

// The page shows what is paused, refused and went wrong, newest first, and what
// strangers wrote only as text.
func TestPageShowsIncidentsAndPauses(t *testing.T) {
	e := busyEngine()
	flow := &e.status.Flows[0]
	flow.Fence, flow.Throttle = "detection", 50_000_000
	flow.Topics = append(flow.Topics, mirror.TopicStatus{Source: "quiet", Target: "east.quiet", Modes: map[string]uint64{"raw": 1, "merge": 20}, Partitions: []mirror.PartitionStatus{{State: "paused", Error: "paused by command"}}})
	for n := range 40 {
		e.incidents = append(e.incidents, mirror.Incident{ID: uint64(n + 1), Last: time.Now().Add(time.Duration(n-40) * time.Minute), Flow: "east->west", Topic: hostile, Kind: mirror.KindDeadLetter, Times: int64(n), Partition: int32(n), Detail: "number " + string(rune('A'+n%26)) + hostile})
	}
	s, err := console.New(console.Options{Engine: e, Config: &helm{}, Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", http.NoBody))
	page := w.Body.String()
	for _, want := range []string{"detection only", "at most 50 MB/s", "1 topic paused", `title="paused by command"`, "merge 20, raw 8", "and 25 more", "40 in the last day", "39 times", "was changed and not taken", "a restart brings"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if strings.Contains(page, "<script>alert") {
		t.Error("a stranger's text is markup")
	}
	if newest, older := strings.Index(page, "partition 39"), strings.Index(page, "partition 30"); newest < 0 || older < newest {
		t.Errorf("the newest incident stands at %d, an older one at %d", newest, older)
	}
	if bytes.Contains(w.Body.Bytes(), []byte("partition 10,")) {
		t.Error("the page shows more incidents than it has room for")
	}
}
