package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"kmirror/checkpoint"
	"kmirror/internal/console"
	"kmirror/mirror"
)

// engine is an Engine of fixed answers.
type engine struct {
	status    mirror.Status
	incidents []mirror.Incident
	groups    map[string][]checkpoint.GroupStatus
	ready     bool
}

func (e *engine) Status() mirror.Status              { return e.status }
func (e *engine) Ready() bool                        { return e.ready }
func (e *engine) Incidents(uint64) []mirror.Incident { return e.incidents }
func (e *engine) Groups(flow string) (iter.Seq[checkpoint.GroupStatus], bool) {
	list, ok := e.groups[flow]
	if list == nil {
		return nil, ok
	}
	return slices.Values(list), ok
}

const hostile = `<script>alert("x")</script>'"&`

func busyEngine() *engine {
	return &engine{
		ready: true,
		status: mirror.Status{
			Instance: "edge-1", Version: "v1", Started: time.Now().Add(-time.Minute), Members: []string{"edge-1/a", "edge-2/b"}, Leading: true, Term: 3,
			Clusters: []mirror.ClusterStatus{
				{Name: "east", ID: "abc", Kind: "embedded", Addresses: []string{"127.0.0.1:19092"}, Reachable: true},
				{Name: "west", Kind: "external", Addresses: []string{"10.0.0.1:9092"}, Error: "dial " + hostile},
			},
			Flows: []mirror.FlowStatus{{
				Name: "east->west", From: "east", To: "west", Naming: "prefixed", State: "degraded", Records: 1234567, RecordsPerSecond: 12.3, LagRecords: 5, LagSeconds: 0.5, Error: hostile,
				Topics: []mirror.TopicStatus{{
					Source: hostile, Target: "east." + hostile, Error: hostile, Modes: map[string]uint64{"raw": 7},
					Partitions: []mirror.PartitionStatus{{Partition: 4, State: "stopped", Error: "because " + hostile, Position: 10, SourceEnd: -1}},
				}},
			}},
		},
		groups: map[string][]checkpoint.GroupStatus{"east->west": {{
			Group: hostile, State: "behind",
			Partitions: []checkpoint.GroupPartition{{Topic: "orders", TargetTopic: "east.orders", Partition: 1, SourceOffset: 50, Translated: 40, TargetOffset: 30, Shortfall: 10}},
		}}},
	}
}

func serve(t *testing.T, e *engine) *httptest.Server {
	t.Helper()
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "kmirror_test_total", Help: "A counter."})
	registry.MustRegister(counter)
	s, err := console.New(console.Options{Engine: e, Gatherer: registry})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return server
}

// answered is an answer whose body was read.
type answered struct {
	StatusCode int
	Header     http.Header
}

func get(t *testing.T, method, url string) (answered, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answered{response.StatusCode, response.Header}, string(body)
}

func TestRoutes(t *testing.T) {
	starting := busyEngine()
	starting.ready = false
	for _, c := range []struct {
		engine       *engine
		method, path string
		code         int
		kind, body   string
	}{
		{busyEngine(), "GET", "/healthz", 200, "text/plain", "ok\n"},
		{busyEngine(), "GET", "/readyz", 200, "text/plain", "ready\n"},
		{starting, "GET", "/readyz", 503, "text/plain", "starting\n"},
		{starting, "GET", "/healthz", 200, "text/plain", "ok\n"},
		{busyEngine(), "GET", "/metrics", 200, "text/plain", "kmirror_test_total 0\n"},
		{busyEngine(), "GET", "/api/v1/status", 200, "application/json", `"instance":"edge-1"`},
		{busyEngine(), "GET", "/api/v1/groups?flow=east-%3Ewest", 200, "application/json", `"shortfall":10`},
		{busyEngine(), "GET", "/api/v1/groups?flow=nope", 404, "application/json", `no flow \"nope\" here`},
		{busyEngine(), "GET", "/api/v1/groups", 400, "application/json", `parameter flow is missing`},
		{busyEngine(), "GET", "/api/v1/groups?flow=east-%3Ewest&match=nobody-.*", 200, "application/json", `"total":0`},
		{busyEngine(), "GET", "/api/v1/groups?flow=east-%3Ewest&state=behind&limit=1&partitions=false", 200, "application/json", `"states":{"behind":1}`},
		{busyEngine(), "GET", "/api/v1/groups?flow=east-%3Ewest&match=(", 400, "application/json", `is no pattern`},
		{busyEngine(), "GET", "/api/v1/groups?flow=east-%3Ewest&limit=0", 400, "application/json", `is no number from 1 to 10000`},
		{busyEngine(), "GET", "/api/v1/groups?flow=east-%3Ewest&what=1", 400, "application/json", `unknown parameter`},
		{busyEngine(), "GET", "/api/v1/lag?flow=east-%3Ewest&partitions=true", 200, "application/json", `"partition":4`},
		{busyEngine(), "GET", "/api/v1/lag?flow=east-%3Ewest&topic=nope", 404, "application/json", `no topic`},
		{busyEngine(), "GET", "/api/v1/lag?flow=east-%3Ewest&partitions=2", 400, "application/json", `neither true nor false`},
		{busyEngine(), "GET", "/api/v1/lag", 400, "application/json", `parameter flow is missing`},
		{busyEngine(), "GET", "/api/v1/rpo?flow=east-%3Ewest", 200, "application/json", `"groups":[{"group":`},
		{busyEngine(), "GET", "/api/v1/rpo?flow=nope", 404, "application/json", `no flow \"nope\" here`},
		{busyEngine(), "GET", "/api/v2/status", 404, "application/json", `no such call`},
		{busyEngine(), "GET", "/nowhere", 404, "text/plain", "not found"},
		{busyEngine(), "GET", "/", 200, "text/html", "<h1>kmirror</h1>"},
		{busyEngine(), "HEAD", "/", 200, "text/html", ""},
		{busyEngine(), "POST", "/", 405, "text/plain", "only GET and HEAD"},
		{busyEngine(), "DELETE", "/api/v1/status", 405, "text/plain", "only GET and HEAD"},
		{busyEngine(), "OPTIONS", "/metrics", 405, "text/plain", "only GET and HEAD"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			response, body := get(t, c.method, serve(t, c.engine).URL+c.path)
			if response.StatusCode != c.code {
				t.Errorf("code = %d, want %d", response.StatusCode, c.code)
			}
			if got := response.Header.Get("Content-Type"); !strings.HasPrefix(got, c.kind) {
				t.Errorf("content type = %q, want %q", got, c.kind)
			}
			if !strings.Contains(body, c.body) {
				t.Errorf("body %q does not contain %q", body, c.body)
			}
			for header, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			} {
				if c.code != 405 && response.Header.Get(header) != want {
					t.Errorf("header %s = %q, want %q", header, response.Header.Get(header), want)
				}
			}
		})
	}
}

func TestPageEscapesWhatClientsMadeUp(t *testing.T) {
	_, body := get(t, "GET", serve(t, busyEngine()).URL+"/")
	if strings.Contains(body, "<script>alert") {
		t.Error("a topic name became markup")
	}
	if got, want := strings.Count(body, "&lt;script&gt;alert"), 8; got != want {
		t.Errorf("hostile names shown %d times, want %d", got, want)
	}
	if regexp.MustCompile(`(?i)(src|href)="?(https?:)?//`).MatchString(body) {
		t.Error("the page loads something from elsewhere")
	}
}

// The policy's hashes must be those of the very bytes between the tags, or the
// browser shows a page without style and script.
func TestPolicyNamesTheInlineCode(t *testing.T) {
	response, body := get(t, "GET", serve(t, busyEngine()).URL+"/")
	policy := response.Header.Get("Content-Security-Policy")
	for tag, directive := range map[string]string{"style": "style-src", "script": "script-src"} {
		inline := regexp.MustCompile(`(?s)<` + tag + `>(.*?)</` + tag + `>`).FindStringSubmatch(body)
		if inline == nil {
			t.Fatalf("no <%s> in the page", tag)
		}
		if want := directive + " '" + console.SourceHash([]byte(inline[1])) + "'"; !strings.Contains(policy, want) {
			t.Errorf("policy %q lacks %q", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q allows too much", policy)
	}
	if regexp.MustCompile(`\s(style|on[a-z]+)="`).MatchString(body) {
		t.Error("the page has inline attributes that its own policy forbids")
	}
}

func TestPageWithoutFlows(t *testing.T) {
	_, body := get(t, "GET", serve(t, &engine{ready: true, status: mirror.Status{Instance: "edge-1"}}).URL+"/")
	for _, want := range []string{"serves its clusters only", "No clusters yet", "edge-1"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestPageIsBounded(t *testing.T) {
	e := busyEngine()
	flow := &e.status.Flows[0]
	for i := range 5000 {
		flow.Topics = append(flow.Topics, mirror.TopicStatus{Source: fmt.Sprintf("topic-%04d", i), LagRecords: int64(i), Partitions: []mirror.PartitionStatus{{State: "stopped"}}})
	}
	_, body := get(t, "GET", serve(t, e).URL+"/")
	if len(body) > 200<<10 {
		t.Errorf("the page has %d bytes", len(body))
	}
	for _, want := range []string{"and 4901 more", "and 4951 more", "topic-4999"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestStatusThatCannotBeEncodedIsA500(t *testing.T) {
	e := busyEngine()
	e.status.Flows[0].LagSeconds = math.NaN()
	response, body := get(t, "GET", serve(t, e).URL+"/api/v1/status")
	var answer console.ErrorAnswer
	if err := json.Unmarshal([]byte(body), &answer); err != nil || response.StatusCode != 500 || answer.Error == "" {
		t.Errorf("got %d %q", response.StatusCode, body)
	}
	if response, _ := get(t, "GET", serve(t, e).URL+"/"); response.StatusCode != 200 {
		t.Errorf("the page answers %d to an unknown lag", response.StatusCode)
	}
}

// The worst off are kept when there are more groups than an answer takes.
func TestGroupsAreCollectedByGravity(t *testing.T) {
	c := console.NewCollect(console.GroupsQuery{Flow: "f", Limit: 3})
	states := checkpoint.States()
	for i := range 5000 {
		state := states[0]
		if i%1000 == 500 {
			state = states[len(states)-1-i/1000%2]
		}
		c.Add(console.NewGroup(checkpoint.GroupStatus{Group: fmt.Sprintf("g%04d", i), State: state, Partitions: []checkpoint.GroupPartition{{State: state, Translated: -1}}}))
	}
	answer := c.Answer()
	var got []string
	for _, g := range answer.Groups {
		got = append(got, g.Group+" "+g.State)
	}
	if diff := cmp.Diff([]string{"g0500 error", "g2500 error", "g4500 error"}, got); diff != "" || answer.Total != 5000 || answer.States["diverged"] != 2 {
		t.Errorf("of %d groups, %v: (-want +got)\n%s", answer.Total, answer.States, diff)
	}
}

func TestGroupSums(t *testing.T) {
	g := console.NewGroup(checkpoint.GroupStatus{Group: "g", State: "behind", Partitions: []checkpoint.GroupPartition{
		{Topic: "a", State: "behind", SourceOffset: 90, Translated: 80, TargetOffset: 70, Exact: true},
		{Topic: "b", State: "in-step", SourceOffset: 5, Translated: 5, TargetOffset: 5, Slack: 3},
		{Topic: "c", State: "waiting", SourceOffset: 9, Translated: 4, TargetOffset: 4, Shortfall: 5},
		{Topic: "d", State: "diverged", SourceOffset: 9, Translated: 9, TargetOffset: 4, Exact: true},
	}})
	g.Partitions[0].SourceLag, g.Partitions[1].SourceLag, g.Partitions[1].SourceLagSeconds = 10, 7, 2.5
	g.Sum()
	if g.Behind != 10 || g.Shortfall != 5 || g.Approximate != 1 || g.PartitionCount != 4 || g.SourceLag != 17 || g.TargetLag != -1 || g.SourceLagSeconds != 2.5 || g.Worst().Topic != "d" {
		t.Errorf("%+v, the worst %+v", g, g.Worst())
	}
	absurd := console.GroupPartition{Shortfall: math.MaxInt64}
	g = console.Group{Partitions: []console.GroupPartition{absurd, absurd}}
	g.Sum()
	if g.Shortfall != math.MaxInt64 {
		t.Errorf("a shortfall of %d", g.Shortfall)
	}
}

func TestPageTellsWhatAFailoverLoses(t *testing.T) {
	e := busyEngine()
	seen := time.Now().Add(-3 * time.Minute)
	e.status.Life = "me"
	e.status.Flows[0].Known = true
	e.status.Flows[0].Topics[0].Partitions[0] = mirror.PartitionStatus{Owner: "me", State: "mirroring", LagRecords: 12, LagBytes: 3400, LagBytesEstimated: true, LagSeconds: 5}
	_, body := get(t, "GET", serve(t, e).URL+"/")
	if want := "A failover to west now would lose 12 records, ~3.4 kB, the oldest 5.0 s old; 1 group read beyond it."; !strings.Contains(body, want) {
		t.Errorf("the page lacks %q", want)
	}
	e.status.Clusters[0].Reachable, e.status.Clusters[0].LastSeen = false, &seen
	_, body = get(t, "GET", serve(t, e).URL+"/")
	if want := "east has not answered for 3 min. By then a failover to west would have lost 12 records"; !strings.Contains(body, want) {
		t.Errorf("the page lacks %q", want)
	}
	e.status.Maps = []mirror.MapStatus{{Cluster: "west", Partitions: 3, Runs: 12, Memory: 4096}}
	e.status.Skipped = []mirror.SkippedRecords{{Cluster: "west", Topic: "__kmirror_offset_map", Records: 2}}
	_, body = get(t, "GET", serve(t, e).URL+"/")
	for _, want := range []string{"offset map 3 partitions, 12 runs, 4.1 kB", "2 records passed over in __kmirror_offset_map"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestRunStopsInOrder(t *testing.T) {
	s, err := console.New(console.Options{Engine: busyEngine(), Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, l) }()
	client := console.NewClient(l.Addr().String())
	if _, err := client.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
	var unreachable *console.UnreachableError
	if _, err := client.Status(t.Context()); !errors.As(err, &unreachable) {
		t.Errorf("Status after the stop = %v", err)
	} else if !strings.Contains(err.Error(), "kmirror run") || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("the error %q does not say where and what to do", err)
	}
}

func TestClient(t *testing.T) {
	e := busyEngine()
	server := serve(t, e)
	client := console.NewClient(server.Listener.Addr().String())
	status, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := e.status
	want.Started = want.Started.Round(0)
	if diff := cmp.Diff(want, status.Status, cmp.Comparer(time.Time.Equal)); diff != "" {
		t.Errorf("status differs (-want +got):\n%s", diff)
	}
	groups, err := client.Groups(t.Context(), console.GroupsQuery{Flow: "east->west"})
	if err != nil || len(groups.Groups) != 1 || groups.Groups[0].Partitions[0].Translated != 40 {
		t.Errorf("groups = %+v, %v", groups, err)
	}
	var answer *console.AnswerError
	if _, err := client.Groups(t.Context(), console.GroupsQuery{Flow: "no->flow"}); !errors.As(err, &answer) || !answer.NotFound() {
		t.Errorf("groups of no flow: %v", err)
	}
}

func TestClientMeetsAStranger(t *testing.T) {
	for body, code := range map[string]int{"hello": 200, "<h1>nginx</h1>": 404, "{}": 302} {
		stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}))
		_, err := console.NewClient(stranger.Listener.Addr().String()).Status(t.Context())
		var answer *console.AnswerError
		if !errors.As(err, &answer) || answer.NotFound() || !strings.Contains(err.Error(), "kmirror's") {
			t.Errorf("%d %s: %v", code, body, err)
		}
		stranger.Close()
	}
}

func TestBaseURL(t *testing.T) {
	for address, want := range map[string]string{
		"127.0.0.1:7070": "http://127.0.0.1:7070", "0.0.0.0:7070": "http://127.0.0.1:7070", ":7070": "http://127.0.0.1:7070",
		"[::]:7070": "http://127.0.0.1:7070", "[::1]:80": "http://[::1]:80", "edge-1:7070": "http://edge-1:7070",
	} {
		if got := console.BaseURL(address); got != want {
			t.Errorf("BaseURL(%q) = %q, want %q", address, got, want)
		}
	}
}

func TestFormat(t *testing.T) {
	for got, want := range map[string]string{
		console.FormatCount(0): "0", console.FormatCount(1234): "1234", console.FormatCount(12345): "12\u202f345", console.FormatCount(1234567): "1\u202f234\u202f567", console.FormatCount(-1): "–",
		console.FormatBytes(0): "0 B", console.FormatBytes(999): "999 B", console.FormatBytes(1500): "1.5 kB", console.FormatBytes(999999): "1.0 MB", console.FormatBytes(2.1e8): "210 MB",
		console.FormatByteRate(math.Inf(1)): "–", console.FormatByteRate(12): "12 B/s",
		console.FormatRate(0.01): "< 0.1", console.FormatRate(3.14): "3.1", console.FormatRate(12345.6): "12\u202f346",
		console.FormatSeconds(-1): "–", console.FormatSeconds(0.0001): "1 ms", console.FormatSeconds(0.25): "250 ms", console.FormatSeconds(1.25): "1.2 s",
		console.FormatSeconds(61): "1 min 1 s", console.FormatSeconds(7200): "2 h", console.FormatSeconds(1e300): "11574 d 1 h",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
