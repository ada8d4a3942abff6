package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"kmirror/mirror"
)

// maxAnswer bounds what the client reads of one answer: a status of 100 000
// partitions is about 30 MiB.
const maxAnswer = 256 << 20

// UnreachableError says that no daemon answered at Address.
type UnreachableError struct {
	Address string
	Err     error
}

// Error names the address, the cause and what to do.
func (e *UnreachableError) Error() string {
	cause := e.Err.Error()
	switch {
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		cause = "connection refused"
	case errors.Is(e.Err, context.DeadlineExceeded):
		cause = "no answer in time"
	}
	return fmt.Sprintf("no kmirror daemon answers at %s (%s): start it with `kmirror run`, or name its configuration with --config", e.Address, cause)
}

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// AnswerError is an answer that was not 200.
type AnswerError struct {
	Address string
	Code    int
	Message string
}

// Error returns the daemon's own words where it gave some.
func (e *AnswerError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return fmt.Sprintf("%s answered %d %s: is this really kmirror's address?", e.Address, e.Code, http.StatusText(e.Code))
}

// NotFound tells whether the thing asked for does not exist.
func (e *AnswerError) NotFound() bool { return e.Code == http.StatusNotFound && e.Message != "" }

// Client asks a running daemon. Safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

// NewClient returns a client of the daemon that listens on address, as in the
// http key of mirror.yaml: host:port, where an unspecified host means this machine.
func NewClient(address string) *Client {
	return &Client{base: BaseURL(address), http: &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			Proxy:                 nil, // the daemon is near; a proxy would only see our business
			DialContext:           (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			ResponseHeaderTimeout: steerTimeout + 2*time.Second,
			MaxIdleConns:          2,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// BaseURL returns the URL under which this machine reaches a console that
// listens on address.
func BaseURL(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "http://" + address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Status asks for the daemon's status.
func (c *Client) Status(ctx context.Context) (StatusAnswer, error) {
	var status StatusAnswer
	err := c.get(ctx, "/api/v1/status", &status)
	return status, err
}

// Groups asks for groups of one flow; an *AnswerError with NotFound when the daemon has no such flow.
func (c *Client) Groups(ctx context.Context, q GroupsQuery) (GroupsAnswer, error) {
	var answer GroupsAnswer
	err := c.get(ctx, "/api/v1/groups?"+q.values().Encode(), &answer)
	return answer, err
}

// Incidents asks for incidents.
func (c *Client) Incidents(ctx context.Context, q IncidentQuery) (IncidentsAnswer, error) {
	var answer IncidentsAnswer
	path := "/api/v1/incidents"
	if values := q.values(); len(values) > 0 {
		path += "?" + values.Encode()
	}
	err := c.get(ctx, path, &answer)
	return answer, err
}

// Pause asks to pause a topic of a flow, or with an empty topic all of it. The
// note says what is odd about it, empty if nothing is.
func (c *Client) Pause(ctx context.Context, flow, topic string) (note string, err error) {
	var answer doneAnswer
	err = c.post(ctx, "/api/v1/flows/"+url.PathEscape(flow)+"/pause", pauseRequest{Topic: topic}, &answer)
	return answer.Note, err
}

// Resume asks to resume what is paused, and to look again at what has stopped.
func (c *Client) Resume(ctx context.Context, flow, topic string, o mirror.ResumeOptions) (note string, err error) {
	asked := resumeRequest{Topic: topic, Accept: o.Accept}
	if o.Partition >= 0 {
		asked.Partition = &o.Partition
	}
	var answer doneAnswer
	err = c.post(ctx, "/api/v1/flows/"+url.PathEscape(flow)+"/resume", asked, &answer)
	return answer.Note, err
}

// Reload asks the daemon to read its file again.
func (c *Client) Reload(ctx context.Context, dryRun bool) (ReloadAnswer, error) {
	var answer ReloadAnswer
	err := c.post(ctx, "/api/v1/reload", reloadRequest{DryRun: dryRun}, &answer)
	return answer, err
}

func (c *Client) get(ctx context.Context, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.base, err)
	}
	return c.ask(request, into)
}

func (c *Client) post(ctx context.Context, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.base, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.base, err)
	}
	request.Header.Set("Content-Type", "application/json")
	return c.ask(request, into)
}

func (c *Client) ask(request *http.Request, into any) error {
	ctx := request.Context()
	response, err := c.http.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if asURL, ok := errors.AsType[*url.Error](err); ok {
			err = asURL.Err // the URL is in our own message already
		}
		return &UnreachableError{Address: c.base, Err: err}
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return &UnreachableError{Address: c.base, Err: err}
	}
	if response.StatusCode != http.StatusOK {
		var answer ErrorAnswer
		_ = json.Unmarshal(body, &answer) // something else may listen there
		return &AnswerError{Address: c.base, Code: response.StatusCode, Message: answer.Error}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return &AnswerError{Address: c.base, Code: response.StatusCode, Message: fmt.Sprintf("%s answered something that is not kmirror's: %v", c.base, err)}
	}
	return nil
}
