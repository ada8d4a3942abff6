package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"time"

	"kmirror/mirror"
	"kmirror/topology"
)

// Steering is what operators may do through the console; *mirror.Engine has it.
// Both may be called from many goroutines at once.
type Steering interface {
	Pause(ctx context.Context, flow, topic string) error
	Resume(ctx context.Context, flow, topic string, o mirror.ResumeOptions) error
}

// Configuration is the daemon's view of its file.
type Configuration interface {
	// Reload reads the file again and takes what is live of it, all of it after
	// it was checked; with dryRun it only says what it would do. A faulty file,
	// or one that cannot be taken, changes nothing: then the answer's Error or
	// Faults say why, and the error is nil.
	Reload(ctx context.Context, dryRun bool) (ReloadAnswer, error)
	// State is what the status says of the file.
	State() ConfigState
}

// ReloadAnswer is the body of /api/v1/reload.
type ReloadAnswer struct {
	Path    string            `json:"path"`    // of the file, absolute
	DryRun  bool              `json:"dry_run"` // nothing was changed
	Taken   bool              `json:"taken"`   // what is live holds now
	Changes []topology.Change `json:"changes"` // against what runs; those that are not live wait for a restart
	Faults  []string          `json:"faults,omitempty"`
	Error   string            `json:"error,omitempty"`
}

// ConfigState is what a status says of the file.
type ConfigState struct {
	Path    string     `json:"path"`              // absolute
	Taken   time.Time  `json:"taken"`             // when what runs was read
	Refused *time.Time `json:"refused,omitempty"` // when a newer file was not taken, if that was the last thing
	Error   string     `json:"error,omitempty"`   // why
	Waiting []string   `json:"waiting,omitempty"` // what the file says and only a restart brings
}

// pauseRequest is the body of /api/v1/flows/{flow}/pause.
type pauseRequest struct {
	Topic string `json:"topic"` // empty: the whole flow
}

// resumeRequest is the body of /api/v1/flows/{flow}/resume.
type resumeRequest struct {
	Topic     string `json:"topic"`
	Partition *int32 `json:"partition,omitempty"` // absent: all
	Accept    string `json:"accept,omitempty"`    // kind of incident
}

type reloadRequest struct {
	DryRun bool `json:"dry_run"`
}

// doneAnswer is the body of an answer that has nothing to say but that it is done.
type doneAnswer struct {
	Done bool   `json:"done"`
	Note string `json:"note,omitempty"` // what is odd about it
}

const (
	maxRequest   = 64 << 10
	steerTimeout = 25 * time.Second // below writeTimeout, so that the answer still arrives
)

// steer adds the calls that change something.
func steer(mux *http.ServeMux, o Options) {
	if o.Steering != nil {
		mux.HandleFunc("POST /api/v1/flows/{flow}/pause", fromHere(func(w http.ResponseWriter, r *http.Request) {
			var asked pauseRequest
			if flow, ok := steered(w, r, o.Engine, &asked); ok {
				ended(w, o.Engine, flow, asked.Topic, o.Steering.Pause(r.Context(), flow, asked.Topic))
			}
		}))
		mux.HandleFunc("POST /api/v1/flows/{flow}/resume", fromHere(func(w http.ResponseWriter, r *http.Request) {
			var asked resumeRequest
			flow, ok := steered(w, r, o.Engine, &asked)
			if !ok {
				return
			}
			options := mirror.ResumeOptions{Partition: -1, Accept: asked.Accept}
			if asked.Partition != nil {
				options.Partition = *asked.Partition
			}
			switch {
			case asked.Partition != nil && *asked.Partition < 0:
				writeError(w, http.StatusBadRequest, "partition is a number from 0; leave it out for all")
			case asked.Topic == "" && (asked.Partition != nil || asked.Accept != ""):
				writeError(w, http.StatusBadRequest, "of which topic? partition and accept need one")
			case asked.Accept != "" && !slices.Contains(mirror.AcceptableKinds(), asked.Accept):
				writeError(w, http.StatusBadRequest, fmt.Sprintf("%q cannot be accepted; there are %s", asked.Accept, listWords(mirror.AcceptableKinds())))
			case options.Partition >= 0 && !knowsPartition(o.Engine, flow, asked.Topic, options.Partition):
				writeError(w, http.StatusNotFound, fmt.Sprintf("topic %q of %s has no partition %d here", asked.Topic, flow, options.Partition))
			default:
				ended(w, o.Engine, flow, asked.Topic, o.Steering.Resume(r.Context(), flow, asked.Topic, options))
			}
		}))
	}
	if o.Config != nil {
		mux.HandleFunc("POST /api/v1/reload", fromHere(func(w http.ResponseWriter, r *http.Request) {
			var asked reloadRequest
			if !readRequest(w, r, &asked) {
				return
			}
			answer, err := o.Config.Reload(r.Context(), asked.DryRun)
			if err != nil {
				writeError(w, http.StatusInternalServerError, err.Error())
				return
			}
			writeJSON(w, http.StatusOK, answer)
		}))
	}
}

// fromHere lets through only what a program on this machine asks: the console
// has no login, so whoever may run programs here may steer, and nobody else. A
// browser is not such a program: what it is made to send bears the mark of the
// page that made it.
func fromHere(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		switch {
		case !fromThisMachine(r):
			writeError(w, http.StatusForbidden, "only programs on the daemon's own machine may change something; run kmirror there")
		case h.Get("Origin") != "" || h.Get("Sec-Fetch-Site") != "" || h.Get("Referer") != "":
			writeError(w, http.StatusForbidden, "web pages may not change anything")
		case h.Get("X-Forwarded-For") != "" || h.Get("Forwarded") != "" || h.Get("Via") != "":
			writeError(w, http.StatusForbidden, "what comes through a proxy may not change anything; run kmirror on the daemon's machine")
		default:
			ctx, cancel := context.WithTimeout(r.Context(), steerTimeout)
			defer cancel()
			next(w, r.WithContext(ctx))
		}
	}
}

// fromThisMachine reports whether the peer's address is one of this machine's:
// the loopback's, or the very one that it connected to.
func fromThisMachine(r *http.Request) bool {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(peer)
	if err != nil || ip == nil {
		return false
	}
	if ip.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && local.IP.Equal(ip)
}

// readRequest reads a JSON body, strictly.
func readRequest(w http.ResponseWriter, r *http.Request, into any) bool {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		writeError(w, http.StatusUnsupportedMediaType, "send application/json")
		return false
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil && decoder.Decode(&struct{}{}) != io.EOF {
		err = errors.New("something stands behind the value")
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, "the body cannot be read: "+err.Error())
		return false
	}
	return true
}

// steered reads the body of a call about a flow, and the flow's name.
func steered(w http.ResponseWriter, r *http.Request, engine Engine, into any) (flow string, ok bool) {
	flow = r.PathValue("flow")
	if _, known := engine.Groups(flow); !known {
		writeError(w, http.StatusNotFound, fmt.Sprintf("no flow %q here", flow))
		return "", false
	}
	return flow, readRequest(w, r, into)
}

// ended answers a call about a flow.
func ended(w http.ResponseWriter, engine Engine, flow, topic string, err error) {
	switch {
	case err == nil && topic != "" && !knowsTopic(engine, flow, topic):
		writeJSON(w, http.StatusOK, doneAnswer{true, fmt.Sprintf("flow %s has no topic %s yet", flow, topic)})
	case err == nil:
		writeJSON(w, http.StatusOK, doneAnswer{Done: true})
	case errors.Is(err, context.DeadlineExceeded):
		writeError(w, http.StatusGatewayTimeout, err.Error())
	case topic != "" && !knowsTopic(engine, flow, topic):
		writeError(w, http.StatusNotFound, err.Error())
	default:
		writeError(w, http.StatusConflict, err.Error())
	}
}

func topicOf(engine Engine, flow, topic string) (mirror.TopicStatus, bool) {
	for _, f := range engine.Status().Flows {
		for _, t := range f.Topics {
			if f.Name == flow && t.Source == topic {
				return t, true
			}
		}
	}
	return mirror.TopicStatus{}, false
}

func knowsTopic(engine Engine, flow, topic string) bool {
	_, ok := topicOf(engine, flow, topic)
	return ok
}

func knowsPartition(engine Engine, flow, topic string, partition int32) bool {
	t, _ := topicOf(engine, flow, topic)
	return slices.ContainsFunc(t.Partitions, func(p mirror.PartitionStatus) bool { return p.Partition == partition })
}
