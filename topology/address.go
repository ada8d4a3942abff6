package topology

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// addressUse says what an address is for.
type addressUse int8

const (
	toDial    addressUse = iota // a host that can be connected to, a port from 1
	toServe                     // to listen for Kafka clients: any host, a port from 1
	toServeUI                   // to listen for HTTP: any host, port 0 takes a free one
)

// address reads host:port.
func (r *reader) address(v value, use addressUse, to *string) bool {
	s, ok := r.text(v)
	if !ok {
		return false
	}
	problem, remedy := addressProblem(s.text, use)
	if problem != "" {
		r.fault(v, remedy, "%s %s", s.shown, problem)
		return false
	}
	*to = s.text
	return true
}

// addressProblem says what is wrong with an address, empty if nothing is.
func addressProblem(address string, use addressUse) (problem, remedy string) {
	const form = "write host:port, as in 127.0.0.1:9092 or [::1]:9092"
	if strings.Contains(address, "://") {
		return "is a URL", "leave out the part up to ://"
	}
	if strings.ContainsAny(address, ", \t/") {
		return "is not one address", "write host:port; several addresses are several items of the list"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		if _, err := netip.ParseAddr(strings.Trim(address, "[]")); err == nil || !strings.Contains(address, ":") {
			return "has no port", form
		}
		return "is not an address", form
	}
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 && use != toServeUI {
		return "has no valid port", "choose a port from 1 to 65535"
	}
	switch ip, err := netip.ParseAddr(host); {
	case err == nil && ip.IsUnspecified() && use == toDial:
		return "is an address to listen on, not to connect to", "name the host that clients can reach"
	case err == nil:
		return "", ""
	case host == "" && use == toDial:
		return "has no host", form
	case host == "":
		return "", ""
	case !isHostName(host):
		return "has no valid host", "write a host name, an IPv4 address, or an IPv6 address in brackets"
	}
	return "", ""
}

// isHostName accepts what resolvers do; underscores are common inside container networks.
func isHostName(host string) bool {
	if len(host) > 253 {
		return false
	}
	digitsOnly := true
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
			digitsOnly = digitsOnly && '0' <= c && c <= '9'
		}
	}
	return !digitsOnly // 300.1.1.1 is no name but a mistyped address
}

// listening is one address that this process listens on.
type listening struct {
	at   value
	host string // canonical; empty: all
	port string
	who  string
}

// clash reports whether two listeners would want one address.
func (l listening) clash(o listening) bool {
	return l.port == o.port && l.port != "0" && (l.host == o.host || l.host == "" || o.host == "")
}

// canonical makes addresses comparable: localhost is 127.0.0.1, all wildcards are empty.
func canonical(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address, ""
	}
	if number, err := strconv.ParseUint(port, 10, 16); err == nil {
		port = strconv.FormatUint(number, 10)
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() {
			return "", port
		}
		return ip.Unmap().String(), port
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	return host, port
}
