package main

import (
	"log/slog"

	"kmirror/topology"
	"kmirror/topology/consul"
)

// consulConfig fills the adapter's configuration. The state file lies in the
// data directory, whose lock keeps a second process from it.
func (d *daemon) consulConfig(c *topology.Consul) consul.Config {
	cfg := consul.Config{
		Instance: d.cfg.Instance, Address: c.Address, Prefix: c.Prefix, Datacenter: c.Datacenter, Token: c.Token.Reveal(), TTL: c.TTL,
		StateFile: d.data.join("consul-session"), HTTP: d.page.Addr().String(), Logger: d.logger.With(slog.String("part", "consul")),
	}
	if c.TLS != nil {
		cfg.TLS = &consul.TLS{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key, ServerName: c.TLS.ServerName, InsecureSkipVerify: c.TLS.InsecureSkipVerify}
	}
	return cfg
}
