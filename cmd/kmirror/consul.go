package main

import (
	"kmirror/topology"
	"kmirror/topology/consul"
)

// consulConfig fills the adapter's configuration.
func (d *daemon) consulConfig(c *topology.Consul) consul.Config {
	return consul.Config{}
}
