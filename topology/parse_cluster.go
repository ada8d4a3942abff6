package topology

import (
	"strings"
	"time"
)

// clusterSource remembers where a cluster's parts stand.
type clusterSource struct {
	at        value
	nodes     []value // one per address of Embedded.Nodes
	bootstrap []value // one per address of Bootstrap
}

// clusters reads all clusters. The result has an entry for every name, also of
// faulty clusters, so that flows are not blamed for them.
func (r *reader) clusters(root, v value, config *Config) map[string]*clusterSource {
	known := map[string]*clusterSource{}
	if !v.present() || isNull(v.node) {
		if !v.present() {
			v = value{node: root.node, path: "clusters"}
		}
		r.fault(v, "name at least one, as in east: {bootstrap: [host:9092]}", "there are no clusters")
		return known
	}
	entries, ok := r.entries(v)
	if ok && len(entries) == 0 {
		r.fault(v, "name at least one, as in east: {bootstrap: [host:9092]}", "there are no clusters")
	}
	folded := map[string]string{}
	for _, e := range entries {
		source := &clusterSource{at: e.at}
		known[e.key] = source
		if !clusterName.MatchString(e.key) {
			r.fault(e.at, nameRule, "%q is no name for a cluster", e.key)
		} else if other, twice := folded[strings.ToLower(e.key)]; twice {
			r.fault(e.at, "choose names that differ in more than case", "is too like %s: they would share a directory where case does not count", other)
		}
		folded[strings.ToLower(e.key)] = e.key
		if cluster := r.cluster(e.key, e.value, source); cluster != nil {
			config.Clusters = append(config.Clusters, cluster)
		}
	}
	return known
}

func (r *reader) cluster(name string, v value, source *clusterSource) *Cluster {
	if isNull(v.node) {
		r.fault(v, "write {embedded: {nodes: [host:port]}} or {bootstrap: [host:port]}", "says neither embedded nor bootstrap")
		return nil
	}
	cluster := &Cluster{Name: name, ClientID: "kmirror"}
	var embedded, bootstrap, tls, sasl value
	ok := r.mapping(v, []field{
		{"embedded", func(v value) {
			embedded = v
			if r.given(v) {
				cluster.Embedded = r.embedded(v, source)
			}
		}},
		{"bootstrap", func(v value) {
			bootstrap = v
			cluster.Bootstrap, source.bootstrap = r.addresses(v, toDial)
		}},
		{"tls", func(v value) {
			tls = v
			cluster.TLS = r.tls(v)
		}},
		{"sasl", func(v value) {
			sasl = v
			cluster.SASL = r.sasl(v)
		}},
		{"client_id", func(v value) { r.name(v, &cluster.ClientID) }},
	}, map[string]string{
		"brokers": "bootstrap", "bootstrap.servers": "bootstrap", "bootstrap_servers": "bootstrap", "servers": "bootstrap", "seeds": "bootstrap", "hosts": "bootstrap",
		"ssl": "tls", "client.id": "client_id", "nodes": "embedded.nodes", "user": "sasl.user", "username": "sasl.user", "password": "sasl.password", "settings": "embedded.settings",
	})
	switch {
	case !ok:
		return nil
	case embedded.present() && bootstrap.present():
		r.fault(bootstrap, "keep embedded for a cluster inside kmirror, bootstrap for any other", "a cluster is either embedded or reached by bootstrap addresses, not both")
	case !embedded.present() && !bootstrap.present():
		r.fault(value{v.node, source.at.path}, "write {embedded: {nodes: [host:port]}} or {bootstrap: [host:port]}", "says neither embedded nor bootstrap")
	}
	if embedded.present() {
		for _, security := range []value{tls, sasl} {
			if security.present() {
				r.fault(security, "remove it, and let the nodes listen on addresses that only trusted clients reach", "embedded clusters have no TLS or SASL in this version")
			}
		}
	}
	return cluster
}

// addresses reads a list of addresses, and where each stands.
func (r *reader) addresses(v value, use addressUse) (addresses []string, at []value) {
	items, ok := r.items(v)
	if ok && len(items) == 0 {
		r.fault(v, "name at least one host:port", "is an empty list")
	}
	seen := map[[2]string]value{}
	for _, item := range items {
		var address string
		if !r.address(item, use, &address) {
			continue
		}
		host, port := canonical(address)
		if first, twice := seen[[2]string{host, port}]; twice {
			r.fault(item, "keep one of them", "is the same address as %s", first.path)
			continue
		}
		seen[[2]string{host, port}] = item
		addresses, at = append(addresses, address), append(at, item)
	}
	return addresses, at
}

func (r *reader) embedded(v value, source *clusterSource) *Embedded {
	embedded := &Embedded{Fsync: FsyncBatch, FsyncInterval: time.Second, Settings: map[string]string{}}
	var nodes, advertised, interval value
	ok := r.mapping(v, []field{
		{"nodes", func(v value) {
			nodes = v
			embedded.Nodes, source.nodes = r.addresses(v, toServe)
		}},
		{"advertised", func(v value) {
			advertised = v
			embedded.Advertised, _ = r.addresses(v, toDial)
		}},
		{"fsync", func(v value) { r.choice(v, &embedded.Fsync, FsyncBatch, FsyncInterval, FsyncNever) }},
		{"fsync_interval", func(v value) {
			interval = v
			r.duration(v, 10*time.Millisecond, time.Hour, &embedded.FsyncInterval)
		}},
		{"settings", func(v value) { r.settings(v, embedded.Settings) }},
	}, map[string]string{
		"node": "nodes", "listen": "nodes", "listeners": "nodes", "address": "nodes", "advertised.listeners": "advertised", "config": "settings", "configs": "settings",
		"broker": "settings", "sync": "fsync",
	})
	if !ok {
		return embedded
	}
	switch {
	case !nodes.present():
		r.fault(v, "write nodes: [host:port]", "names no node")
	case len(embedded.Nodes) > 1:
		r.fault(nodes, "keep one address; for several brokers use an Apache Kafka cluster and its bootstrap addresses",
			"asks for %d nodes; an embedded cluster has one node in this version", len(embedded.Nodes))
	case advertised.present() && len(advertised.node.Content) != len(nodes.node.Content):
		r.fault(advertised, "write one address for each of nodes, in the same order",
			"does not have as many addresses as nodes: %d for %d", len(advertised.node.Content), len(nodes.node.Content))
	}
	if !advertised.present() {
		for i, node := range embedded.Nodes {
			if host, _ := canonical(node); host == "" {
				r.fault(source.nodes[i], "add advertised: [host:port] with the address that clients reach", "listens on every address of this host, so clients cannot be told where it is")
			}
		}
		embedded.Advertised = append([]string(nil), embedded.Nodes...)
	}
	if interval.present() && embedded.Fsync != FsyncInterval {
		r.fault(interval, "write fsync: interval too, or remove it", "has no effect with fsync: %s", embedded.Fsync)
	}
	return embedded
}

func (r *reader) tls(v value) *TLS {
	if isNull(v.node) {
		r.fault(v, "write tls: {} for TLS with the system's authorities, or remove the key", "has no value")
		return nil
	}
	tls := &TLS{}
	var cert, key value
	ok := r.mapping(v, []field{
		{"ca", func(v value) { r.existing(v, &tls.CA) }},
		{"cert", func(v value) {
			cert = v
			r.existing(v, &tls.Cert)
		}},
		{"key", func(v value) {
			key = v
			r.existing(v, &tls.Key)
		}},
		{"server_name", func(v value) { r.name(v, &tls.ServerName) }},
		{"insecure_skip_verify", func(v value) { r.boolean(v, &tls.InsecureSkipVerify) }},
	}, map[string]string{
		"ca_file": "ca", "cafile": "ca", "ca_cert": "ca", "cert_file": "cert", "certificate": "cert", "key_file": "key", "servername": "server_name", "insecure": "insecure_skip_verify",
		"skip_verify": "insecure_skip_verify",
	})
	switch {
	case !ok:
		return nil
	case cert.present() && !key.present():
		r.fault(cert, "add key: with the file of its private key", "a certificate needs its key")
	case key.present() && !cert.present():
		r.fault(key, "add cert: with the file of its certificate", "a key needs its certificate")
	}
	return tls
}

func (r *reader) sasl(v value) *SASL {
	if !r.given(v) {
		return nil
	}
	sasl := &SASL{}
	missing := map[string]bool{"mechanism": true, "user": true, "password": true}
	ok := r.mapping(v, []field{
		{"mechanism", func(v value) {
			delete(missing, "mechanism")
			r.mechanism(v, &sasl.Mechanism)
		}},
		{"user", func(v value) {
			delete(missing, "user")
			r.name(v, &sasl.User)
		}},
		{"password", func(v value) {
			delete(missing, "password")
			r.secret(v, &sasl.Password)
		}},
	}, map[string]string{"username": "user", "type": "mechanism", "pass": "password", "sasl.mechanism": "mechanism"})
	if !ok {
		return nil
	}
	for _, key := range []string{"mechanism", "user", "password"} {
		if missing[key] {
			r.fault(v, "add "+key+":", "names no %s", key)
		}
	}
	return sasl
}

func (r *reader) mechanism(v value, to *string) {
	s, ok := r.text(v)
	if !ok {
		return
	}
	switch strings.ToLower(s.text) {
	case "plain":
		*to = MechanismPlain
	case "scram-sha-256":
		*to = MechanismScram256
	case "scram-sha-512":
		*to = MechanismScram512
	default:
		r.fault(v, "write plain, scram-sha-256 or scram-sha-512", "unknown word %s", s.shown)
	}
}

// ports faults listeners of this process that want one address, and aliases of
// one cluster as far as addresses show them.
func (r *reader) ports(config *Config, http value, known map[string]*clusterSource) {
	var listeners []listening
	if host, port := canonical(config.HTTP); http.present() {
		listeners = append(listeners, listening{at: http, host: host, port: port, who: "http"})
	} else {
		listeners = append(listeners, listening{host: host, port: port, who: "http (by default " + config.HTTP + ")"})
	}
	owner := map[[2]string]string{} // of the address of a broker: the cluster
	for _, cluster := range config.Clusters {
		source := known[cluster.Name]
		var nodes []string
		if cluster.Embedded != nil {
			nodes = cluster.Embedded.Nodes
		}
		for i, node := range nodes {
			host, port := canonical(node)
			mine := listening{at: source.nodes[i], host: host, port: port, who: source.nodes[i].path}
			for _, other := range listeners {
				if mine.clash(other) {
					r.fault(mine.at, "give each its own port", "wants the same address as %s", other.who)
					break
				}
			}
			listeners = append(listeners, mine)
			host, port = canonical(dialable(node))
			if _, taken := owner[[2]string{host, port}]; !taken {
				owner[[2]string{host, port}] = cluster.Name
			}
		}
	}
	for _, cluster := range config.Clusters {
		for i, address := range cluster.Bootstrap {
			host, port := canonical(address)
			other, taken := owner[[2]string{host, port}]
			if taken && other != cluster.Name {
				r.fault(known[cluster.Name].bootstrap[i], "keep one name for each cluster", "is an address of cluster %s too", other)
				continue
			}
			owner[[2]string{host, port}] = cluster.Name
		}
	}
}
