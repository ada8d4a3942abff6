package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"time"
)

// page is the HTML page at /: rendered whole on the server at each request, so
// that it works without a script; with one, it refreshes itself.
type page struct {
	opts   Options
	body   *template.Template
	style  template.CSS
	script template.JS
	// policy is the Content-Security-Policy: nothing from outside, and of
	// inline code only the very bytes that we ship.
	policy string
}

//go:embed page
var pageFiles embed.FS

func newPage(o Options) (*page, error) {
	read := func(name string) ([]byte, error) { return pageFiles.ReadFile("page/" + name) }
	body, err := read("page.html")
	if err != nil {
		return nil, err
	}
	style, err := read("page.css")
	if err != nil {
		return nil, err
	}
	script, err := read("page.js")
	if err != nil {
		return nil, err
	}
	parsed, err := template.New("page").Parse(string(body))
	if err != nil {
		return nil, fmt.Errorf("parse the page: %w", err)
	}
	return &page{
		opts: o, body: parsed,
		style:  template.CSS(style), //nolint:gosec // our own embedded file
		script: template.JS(script), //nolint:gosec // our own embedded file
		policy: fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			sourceHash(style), sourceHash(script)),
	}, nil
}

func sourceHash(source []byte) string {
	sum := sha256.Sum256(source)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

func (p *page) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	view := newView(statusAnswer(p.opts, now), p.opts.Engine, now)
	view.Style, view.Script = p.style, p.script
	var out bytes.Buffer
	if err := p.body.Execute(&out, view); err != nil {
		writeText(w, http.StatusInternalServerError, "render the page: "+err.Error()+"\n")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(out.Bytes()) // a peer that went away is not our fault
}
