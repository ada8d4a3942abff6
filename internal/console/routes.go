package console

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// routes joins the handlers behind the rules that hold for all of them.
func routes(o Options, page *page) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !o.Engine.Ready() {
			writeText(w, http.StatusServiceUnavailable, "starting\n")
			return
		}
		writeText(w, http.StatusOK, "ready\n")
	})
	mux.Handle("/metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("/api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, statusAnswer(o, time.Now()))
	})
	mux.HandleFunc("/api/v1/groups", func(w http.ResponseWriter, r *http.Request) { groups(w, r, o.Engine) })
	mux.HandleFunc("/api/v1/lag", func(w http.ResponseWriter, r *http.Request) { lag(w, r, o.Engine) })
	mux.HandleFunc("/api/v1/rpo", func(w http.ResponseWriter, r *http.Request) { rpo(w, r, o.Engine) })
	mux.HandleFunc("/api/v1/incidents", func(w http.ResponseWriter, r *http.Request) { incidents(w, r, o.Engine) })
	steer(mux, o)
	mux.HandleFunc("/api/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "no such call; there are /api/v1/status, /api/v1/groups?flow=, /api/v1/lag?flow=, /api/v1/rpo?flow= and /api/v1/incidents")
	})
	mux.Handle("/{$}", page)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusNotFound, "not found; the page is at /\n")
	})
	return securely(onlyReads(mux), page.policy)
}

func reads(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodHead
}

// onlyReads answers everything but GET and HEAD with 405, and but for POST below
// /api/v1/, where single calls change something.
func onlyReads(next *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !reads(r) {
			if _, pattern := next.Handler(r); !strings.HasPrefix(pattern, "POST ") {
				w.Header().Set("Allow", "GET, HEAD")
				writeText(w, http.StatusMethodNotAllowed, "only GET and HEAD\n")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// securely sets the headers that keep a browser from doing more than showing
// what it was given.
func securely(next http.Handler, policy string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // a peer that went away is not our fault
}

func writeError(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, ErrorAnswer{Error: text})
}

// writeJSON encodes first and sends then, so that a value that cannot be
// encoded is an honest 500 and not half an answer.
func writeJSON(w http.ResponseWriter, code int, value any) {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(value); err != nil {
		body.Reset()
		code = http.StatusInternalServerError
		_ = json.NewEncoder(&body).Encode(ErrorAnswer{Error: "encode the answer: " + err.Error()})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes())
}
