package mm2

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// cluster writes one cluster: its addresses, and how to get in.
func (m *importer) cluster(alias string) {
	var lines []string
	servers, ok := m.ofCluster(alias, "bootstrap.servers")
	if ok {
		m.tell(KindTranslated, servers.Key, "clusters."+alias+".bootstrap")
	} else {
		servers.Value = "localhost:9092"
		m.tell(KindToDo, alias+".bootstrap.servers", "it is missing: write the addresses of some brokers to clusters."+alias+".bootstrap")
	}
	var bootstrap []string
	for _, server := range list(servers.Value) {
		if _, rest, found := strings.Cut(server, "://"); found {
			server = rest
		}
		bootstrap = append(bootstrap, server)
	}
	lines = append(lines, "    bootstrap: "+quoteAll(bootstrap))
	if p, ok := m.first(alias+".client.id", "client.id"); ok {
		lines = append(lines, "    client_id: "+m.plain(p.Value))
		m.tell(KindTranslated, p.Key, "clusters."+alias+".client_id; MirrorMaker 2 appended the flow and the role to it, kmirror does not: look at quotas by client id")
	}
	protocol, given := m.ofCluster(alias, "security.protocol")
	if given {
		m.tell(KindTranslated, protocol.Key, "tls and sasl of the cluster")
	}
	switch strings.ToUpper(protocol.Value) {
	case "", "PLAINTEXT":
	case "SSL":
		lines = append(lines, m.tls(alias)...)
	case "SASL_PLAINTEXT":
		lines = append(lines, m.sasl(alias)...)
	case "SASL_SSL":
		lines = append(append(lines, m.tls(alias)...), m.sasl(alias)...)
	default:
		m.also(KindToDo, protocol.Key, "there is no such protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
	}
	m.clusterText = append(append(m.clusterText, "  "+quote(alias)+":"), lines...)
}

// tls writes the authorities and the certificate of our own. Java's key stores are
// not read: they have to be exported.
func (m *importer) tls(alias string) []string {
	var lines []string
	at := "clusters." + alias + ".tls"
	store := func(what, file string) (path string, ok bool) {
		for _, key := range []string{"password", "type"} {
			if p, ok := m.ofCluster(alias, "ssl."+what+"."+key); ok {
				m.tell(KindNotNeeded, p.Key, "kmirror reads PEM files without a password")
			}
		}
		kind, _ := m.ofCluster(alias, "ssl."+what+".type")
		location, ok := m.ofCluster(alias, "ssl."+what+".location")
		switch {
		case !ok:
			return "", false
		case strings.EqualFold(kind.Value, "PEM"):
			m.tell(KindTranslated, location.Key, at)
			return location.Value, true
		}
		m.tell(KindToDo, location.Key, fmt.Sprintf("kmirror reads PEM: export it to %s (keytool -importkeystore -srckeystore STORE -destkeystore store.p12 -deststoretype PKCS12, then openssl pkcs12 -in store.p12 -out %s %s)", pem(location.Value, file), pem(location.Value, file), map[string]string{"truststore": "-nokeys", "keystore": "-nodes"}[what]))
		return pem(location.Value, file), true
	}
	if file, ok := store("truststore", "ca"); ok {
		lines = append(lines, "      ca: "+m.plain(file))
	} else if p, ok := m.ofCluster(alias, "ssl.truststore.certificates"); ok {
		lines = append(lines, "      ca: "+quote(alias+"-ca.pem"))
		m.tell(KindToDo, p.Key, "write the certificates that stand there to the file "+alias+"-ca.pem beside mirror.yaml")
	}
	if file, ok := store("keystore", "client"); ok {
		lines = append(lines, "      cert: "+m.plain(file), "      key: "+m.plain(file))
	} else if p, ok := m.ofCluster(alias, "ssl.keystore.key"); ok {
		lines = append(lines, "      cert: "+quote(alias+"-cert.pem"), "      key: "+quote(alias+"-key.pem"))
		m.tell(KindToDo, p.Key, "write the key that stands there to the file "+alias+"-key.pem beside mirror.yaml, for kmirror's eyes only")
		if p, ok := m.ofCluster(alias, "ssl.keystore.certificate.chain"); ok {
			m.tell(KindToDo, p.Key, "write the certificates that stand there to the file "+alias+"-cert.pem beside mirror.yaml")
		}
	}
	if p, ok := m.ofCluster(alias, "ssl.key.password"); ok {
		m.tell(KindToDo, p.Key, "kmirror reads keys without a password: openssl pkey -in KEY -out PLAINKEY, and restrict who may read it")
	}
	if p, ok := m.ofCluster(alias, "ssl.endpoint.identification.algorithm"); ok {
		if p.Value == "" || strings.EqualFold(p.Value, "none") {
			m.tell(KindToDo, p.Key, "kmirror holds the certificate against the host's name: set "+at+".server_name to the name that is in it; insecure_skip_verify: true checks nothing at all")
		} else {
			m.tell(KindNotNeeded, p.Key, "kmirror always does")
		}
	}
	if len(lines) == 0 {
		return []string{"    tls: {}"}
	}
	return append([]string{"    tls:"}, lines...)
}

// pem is the name of a store as a PEM file.
func pem(store, what string) string {
	return strings.TrimSuffix(store, path.Ext(store)) + "-" + what + ".pem"
}

// sasl writes user and password; the password as a reference.
func (m *importer) sasl(alias string) []string {
	at := "clusters." + alias + ".sasl"
	mechanism, given := m.ofCluster(alias, "sasl.mechanism")
	if given {
		m.tell(KindTranslated, mechanism.Key, at+".mechanism")
	}
	word := map[string]string{"PLAIN": "plain", "SCRAM-SHA-256": "scram-sha-256", "SCRAM-SHA-512": "scram-sha-512"}[strings.ToUpper(mechanism.Value)]
	if word == "" {
		what := fmt.Sprintf("kmirror knows PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512: give it a user of one of these (MirrorMaker 2 used %s)", strings.ToUpper(nonEmpty(mechanism.Value, "GSSAPI")))
		m.also(KindToDo, nonEmpty(mechanism.Key, alias+".sasl.mechanism"), what)
		word = "scram-sha-512"
	}
	user := "kmirror"
	var password string
	jaas, given := m.ofCluster(alias, "sasl.jaas.config")
	if given {
		options := jaasOptions(jaas.Value)
		user = nonEmpty(options["username"], user)
		password = m.secret(alias, "SASL_PASSWORD", jaas.Key, options["password"])
		m.also(KindTranslated, jaas.Key, at+".user and .password")
		if text, ok := m.reference(jaas.Value); ok || strings.HasPrefix(jaas.Value, "${") {
			m.also(KindToDo, jaas.Key, "all of it stands elsewhere ("+text+"): write the user to "+at+".user")
		}
	} else {
		password = m.secret(alias, "SASL_PASSWORD", alias+".sasl.jaas.config", "")
	}
	return []string{"    sasl:", "      mechanism: " + word, "      user: " + m.plain(user), "      password: " + quote(password)}
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// jaasOptions takes "Module required a="b" c=d;" apart.
func jaasOptions(text string) map[string]string {
	options := map[string]string{}
	for _, found := range regexp.MustCompile(`([A-Za-z_.]+)\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s;]+)`).FindAllStringSubmatch(text, -1) {
		value := found[2]
		if len(value) > 1 && (value[0] == '"' || value[0] == '\'') {
			value = regexp.MustCompile(`\\(.)`).ReplaceAllString(value[1:len(value)-1], "$1")
		}
		options[found[1]] = value
	}
	return options
}
