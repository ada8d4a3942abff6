package consul

import "time"

// Hub is the in-memory Consul, for tests with several instances and faults.
type Hub struct{ *hub }

// NewHub returns an empty hub.
func NewHub() Hub { return Hub{newHub()} }

// Forget loses everything, as a Consul in development mode that is restarted.
func (h Hub) Forget() { h.forget() }

// Destroy destroys the session of a life.
func (h Hub) Destroy(life string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, p := range h.pairs {
		if key == "test/live/members/"+life {
			h.invalidate(p.session)
			return
		}
	}
}

// Keys lists all keys.
func (h Hub) Keys() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	keys := make([]string, 0, len(h.pairs))
	for key := range h.pairs {
		keys = append(keys, key)
	}
	return keys
}

// Link is the way of one client to the hub.
type Link struct{ *link }

func (l Link) Up()     { l.set(linkUp) }
func (l Link) Down()   { l.set(linkDown) }
func (l Link) Silent() { l.set(linkSilent) }

// Client returns a client of the hub with prefix "test".
func (h Hub) Client(instance string, ttl time.Duration, stateFile string) (*Client, Link) {
	l := h.link()
	c := newClient(l, instance, "test", ttl)
	c.state = stateFile
	return c, Link{l}
}

// Unchecked makes the client's sessions independent of checks.
func (c *Client) Unchecked() { c.unchecked = true }

// SweepAfter makes the leading life sweep sooner.
func (c *Client) SweepAfter(every, grace time.Duration) { c.sweeping = sweepTimes{every, grace} }

// Pack and Unpack are the forms of values.
var (
	Pack   = pack
	Unpack = unpack
)
