package topology

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Parse checks the text of a mirror.yaml. name is the file's path: it stands in
// the faults, and relative paths start at its directory. lookupEnv is asked for
// ${NAME}; os.LookupEnv as a rule. The error is [Faults].
func Parse(name string, data []byte, lookupEnv func(string) (string, bool)) (*Config, error) {
	r := &reader{file: name, dir: filepath.Dir(name), lookup: lookupEnv}
	config := Default()
	config.Path = name
	if root, ok := r.document(data); ok {
		r.config(root, &config)
	}
	if len(r.faults) > 0 {
		return nil, r.faults.sorted()
	}
	config.veiled = r.veiled
	return &config, nil
}

// document returns the root of the only document.
func (r *reader) document(data []byte) (value, bool) {
	whole := value{}
	if len(data) > maxFile {
		r.fault(whole, "write less", "is longer than %d bytes", maxFile)
		return whole, false
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	err := decoder.Decode(&document)
	switch {
	case errors.Is(err, io.EOF):
		r.fault(whole, "run kmirror init to write a commented one", "the file is empty")
		return whole, false
	case err != nil:
		r.syntax(err, data)
		return whole, false
	case len(document.Content) == 0 || isNull(document.Content[0]):
		r.fault(whole, "run kmirror init to write a commented one", "the file is empty")
		return whole, false
	}
	root := r.at(document.Content[0], "")
	var second yaml.Node
	switch err := decoder.Decode(&second); {
	case errors.Is(err, io.EOF):
	case err != nil:
		r.syntax(err, data)
		return whole, false
	default:
		r.fault(value{node: &second}, "keep one, and remove the line ---", "a second document begins; a mirror.yaml is one")
	}
	return root, true
}

// syntax turns the YAML library's error into a fault: its text is "yaml: line 3: what".
func (r *reader) syntax(err error, data []byte) {
	problem := strings.TrimPrefix(err.Error(), "yaml: ")
	fault := Fault{File: r.file, Remedy: "correct the YAML; look at the indentation, colons and quotes of this line and its neighbours"}
	if rest, ok := strings.CutPrefix(problem, "line "); ok {
		if number, what, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(number); err == nil {
				fault.Line, problem = line, what
			}
		}
	}
	if strings.HasPrefix(problem, "did not find expected") && fault.Line > 0 {
		fault.Line++ // the library's parser, unlike its scanner, counts from 0
	}
	lines := strings.Split(string(data), "\n")
	for i := max(fault.Line-2, 0); i < min(fault.Line+1, len(lines)); i++ {
		indent := lines[i][:len(lines[i])-len(strings.TrimLeft(lines[i], " \t"))]
		switch {
		case strings.Contains(indent, "\t"):
			fault.Remedy = "indent with spaces, not tabs"
		case unquotedReference.MatchString(lines[i]):
			fault.Remedy = `inside { } and [ ], put "${NAME}" in quotes`
		}
	}
	fault.Problem = problem
	r.faults = append(r.faults, fault)
}

// config reads the root.
func (r *reader) config(root value, config *Config) {
	var instance, clusters, flows, http value
	keep := func(to *value) func(value) { return func(v value) { *to = v } }
	ok := r.mapping(root, []field{
		{"instance", keep(&instance)},
		{"data_dir", func(v value) {
			if r.name(v, &config.DataDir) {
				config.DataDir = r.resolve(config.DataDir)
			}
		}},
		{"http", func(v value) {
			http = v
			r.address(v, toServeUI, &config.HTTP)
		}},
		{"buffer", func(v value) { r.size(v, 4<<20, 1<<40, &config.Buffer) }},
		{"log", func(v value) { r.log(v, &config.Log) }},
		{"clusters", keep(&clusters)},
		{"flows", keep(&flows)},
		{"coordination", func(v value) { r.coordination(v, &config.Coordination) }},
	}, map[string]string{
		"cluster": "clusters", "flow": "flows", "mirrors": "flows", "links": "flows", "name": "instance", "dir": "data_dir", "data": "data_dir",
		"listen": "http", "api": "http", "metrics": "http", "consul": "coordination.consul", "memory": "buffer", "logging": "log", "id": "instance",
	})
	if !ok {
		return
	}
	if !filepath.IsAbs(config.DataDir) && config.DataDir == Default().DataDir {
		config.DataDir = r.resolve(config.DataDir)
	}
	config.Instance = r.instance(root, instance)
	known := r.clusters(root, clusters, config)
	r.ports(config, http, known)
	r.flows(flows, config, known)
}

func (r *reader) log(v value, log *Log) {
	if r.given(v) {
		r.mapping(v, []field{
			{"level", func(v value) { r.choice(v, &log.Level, "debug", "info", "warn", "error") }},
			{"format", func(v value) { r.choice(v, &log.Format, "text", "json") }},
		}, nil)
	}
}

var (
	instanceName = regexp.MustCompile(`\A[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}\z`)
	clusterName  = regexp.MustCompile(`\A[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}\z`)
	// unquotedReference is a ${NAME} whose } ends the braces around it.
	unquotedReference = regexp.MustCompile(`[{\[].*[:,\[]\s*[^"'\s]*\$\{`)
	keyPrefix         = regexp.MustCompile(`\A[a-zA-Z0-9._-]+(/[a-zA-Z0-9._-]+)*\z`)
)

const nameRule = "use 1 to 64 letters, digits, dots, underscores and hyphens, a letter or digit first"

// instance is the name given, or the host's.
func (r *reader) instance(root, v value) string {
	if !v.present() {
		host, err := os.Hostname()
		if err != nil || !instanceName.MatchString(host) {
			v = value{node: root.node, path: "instance"}
			r.fault(v, "name this instance with the key instance", "is not given, and the host's name %q cannot stand in for it", host)
		}
		return host
	}
	s, ok := r.text(v)
	if ok && !instanceName.MatchString(s.text) {
		r.fault(v, nameRule, "%s is no name for an instance", s.shown)
	}
	return s.text
}

func (r *reader) coordination(v value, to *Coordination) {
	if isNull(v.node) {
		return // everything below it is commented out: a single instance
	}
	r.mapping(v, []field{{"consul", func(v value) { r.consul(v, to) }}}, nil)
}

func (r *reader) consul(v value, to *Coordination) {
	if !r.given(v) {
		return
	}
	consul := &Consul{Address: "127.0.0.1:8500", Prefix: "kmirror", TTL: 15 * time.Second}
	to.Consul = consul
	r.mapping(v, []field{
		{"address", func(v value) { r.consulAddress(v, &consul.Address) }},
		{"prefix", func(v value) {
			s, ok := r.text(v)
			if ok && (!keyPrefix.MatchString(s.text) || len(s.text) > 128) {
				r.fault(v, "use letters, digits, dots, underscores, hyphens, and slashes between them", "%s is no prefix for keys", s.shown)
			}
			consul.Prefix = s.text
		}},
		{"datacenter", func(v value) { r.name(v, &consul.Datacenter) }},
		{"token", func(v value) { r.secret(v, &consul.Token) }},
		{"ttl", func(v value) { r.duration(v, 10*time.Second, time.Hour, &consul.TTL) }},
		{"tls", func(v value) { consul.TLS = r.tls(v) }},
	}, map[string]string{"host": "address", "url": "address", "addr": "address", "acl_token": "token", "dc": "datacenter", "key": "prefix", "session_ttl": "ttl"})
}

func (r *reader) consulAddress(v value, to *string) {
	s, ok := r.text(v)
	if !ok {
		return
	}
	rest := s.text
	for _, scheme := range []string{"http://", "https://"} {
		rest = strings.TrimPrefix(rest, scheme)
	}
	if path, isSocket := strings.CutPrefix(s.text, "unix://"); isSocket && path != "" {
		*to = s.text
		return
	}
	if problem, _ := addressProblem(strings.TrimSuffix(rest, "/"), toDial); problem != "" {
		r.fault(v, "write host:port, as in 127.0.0.1:8500, or https://host:port, or unix:///path", "%s %s", s.shown, problem)
		return
	}
	*to = strings.TrimSuffix(s.text, "/")
}
