package consul_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"kmirror/topology/consul"
)

// agent is a real Consul, one server in development mode.
type agent struct {
	binary  string
	flags   []string
	address string
	token   string
	process *exec.Cmd
	api     *api.Client
}

// realConsul starts one; the binary is named by KMIRROR_CONSUL.
func realConsul(t *testing.T, extra ...string) *agent {
	t.Helper()
	return realConsulAs(t, "", extra...)
}

// realConsulAs starts one that is asked with a token.
func realConsulAs(t *testing.T, token string, extra ...string) *agent {
	t.Helper()
	binary := os.Getenv("KMIRROR_CONSUL")
	if binary == "" {
		t.Skip("no real Consul: KMIRROR_CONSUL names no binary (see integration/consul)")
	}
	ports := freePorts(t, 3)
	a := &agent{binary: binary, token: token, address: fmt.Sprintf("127.0.0.1:%d", ports[0])}
	a.flags = append([]string{
		"agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=warn", "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", "-serf-wan-port=-1",
		fmt.Sprintf("-http-port=%d", ports[0]), fmt.Sprintf("-serf-lan-port=%d", ports[1]), fmt.Sprintf("-server-port=%d", ports[2]),
	}, extra...)
	a.start(t)
	t.Cleanup(func() { a.kill(t) })
	return a
}

func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (a *agent) start(t *testing.T) {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "consul.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	a.process = exec.Command(a.binary, a.flags...)
	a.process.Stdout, a.process.Stderr = log, log
	if err := a.process.Start(); err != nil {
		t.Fatal(err)
	}
	config := api.DefaultConfig()
	config.Address, config.Token = a.address, a.token
	if a.api, err = api.NewClient(config); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, "Consul has a leader", func() bool {
		leader, err := a.api.Status().Leader()
		if err != nil || leader == "" {
			return false
		}
		_, _, err = a.api.KV().Get("x", nil)
		services, catalogErr := a.api.Agent().Services()
		return err == nil && catalogErr == nil && services != nil
	})
}

func (a *agent) kill(t *testing.T) {
	t.Helper()
	if err := a.process.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = a.process.Wait()
}

func (a *agent) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := a.process.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// realWorld is a prefix of an agent's keys.
type realWorld struct {
	*agent
	prefix string
}

var worlds atomic.Int64

func (a *agent) world() realWorld { return realWorld{a, fmt.Sprintf("test/%d", worlds.Add(1))} }

func (w realWorld) config(t *testing.T, instance string) consul.Config {
	return consul.Config{
		Instance: instance, Address: w.address, Prefix: w.prefix, Token: w.token, TTL: ttl, HTTP: "127.0.0.1:7070", Logger: slog.New(slog.NewTextHandler(logTo{t}, nil)),
	}
}

// logTo writes lines to a test's log; what comes after the test is dropped.
type logTo struct{ t *testing.T }

func (l logTo) Write(line []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(string(bytes.TrimSpace(line)))
	}
	return len(line), nil
}

func (w realWorld) client(t *testing.T, instance, stateFile string) (*consul.Client, link) {
	t.Helper()
	g := newGate()
	config := w.config(t, instance)
	config.StateFile, config.Dial = stateFile, g.Dial
	client, err := consul.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return client, g
}

func (w realWorld) destroy(t *testing.T, life string) {
	t.Helper()
	pair, _, err := w.api.KV().Get(w.prefix+"/live/members/"+life, nil)
	if err != nil || pair == nil || pair.Session == "" {
		t.Fatalf("no session of %s: %v, %v", life, pair, err)
	}
	if _, err := w.api.Session().Destroy(pair.Session, nil); err != nil {
		t.Fatal(err)
	}
}

func (w realWorld) loseState(t *testing.T) {
	t.Helper()
	w.kill(t)
	time.Sleep(time.Second) // long enough for every connection to be refused once
	w.start(t)
}

func (w realWorld) keys(t *testing.T) []string {
	t.Helper()
	keys, _, err := w.api.KV().Keys(w.prefix, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestReal(t *testing.T) {
	a := realConsul(t)
	t.Run("together", func(t *testing.T) {
		for _, s := range stories() {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				s.tell(t, a.world())
			})
		}
		t.Run("services", func(t *testing.T) {
			t.Parallel()
			servicesAreRegistered(t, a.world())
		})
		t.Run("the state is lost", func(t *testing.T) {
			t.Parallel()
			stateIsLost(t, realConsul(t).world())
		})
		t.Run("Consul is paused", func(t *testing.T) {
			t.Parallel()
			consulPaused(t, realConsul(t).world())
		})
	})
	sessions, _, err := a.api.Session().List(nil)
	if err != nil || len(sessions) > 0 {
		t.Errorf("%d sessions are left (%v), want none", len(sessions), err)
	}
}

func servicesAreRegistered(t *testing.T, w realWorld) {
	a := start(t, w, "edge-1", "")
	within(t, soon, "it is there", func() bool { return a.sees(a.id()) })
	name := w.prefix[strings.LastIndexByte(w.prefix, '/')+1:]
	within(t, soon, "the service is healthy", func() bool {
		entries, _, err := w.api.Health().Service(name, "", true, nil)
		return err == nil && len(entries) == 1 && entries[0].Service.Port == 7070 && entries[0].Service.Address == "127.0.0.1" && entries[0].Service.Meta["instance"] == "edge-1"
	})
	a.leave(t)
	within(t, soon, "the service is gone", func() bool {
		entries, _, err := w.api.Health().Service(name, "", false, nil)
		return err == nil && len(entries) == 0
	})
}

// consulPaused stops the agent's process, first for less than a TTL, then for more.
func consulPaused(t *testing.T, w realWorld) {
	a, b := start(t, w, "edge-1", ""), start(t, w, "edge-2", "")
	within(t, soon, "both see both", func() bool { return a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	leader, _ := leaderOf(t, soon, a, b)

	w.signal(t, syscall.SIGSTOP)
	during(t, ttl/2, "all goes on", func() bool { return a.id() != "" && b.id() != "" && leader.isLeading() })
	w.signal(t, syscall.SIGCONT)
	during(t, 2*time.Second, "and on", func() bool { return a.id() != "" && b.id() != "" && leader.isLeading() })
	if a.lifetimes() != 1 || b.lifetimes() != 1 {
		t.Errorf("lives: %d and %d, want one each", a.lifetimes(), b.lifetimes())
	}

	fence := leader.fence()
	w.signal(t, syscall.SIGSTOP)
	within(t, ttl+time.Second, "all lives end", func() bool { return a.id() == "" && b.id() == "" })
	w.signal(t, syscall.SIGCONT)
	within(t, 2*ttl, "all are back", func() bool { return a.id() != "" && b.id() != "" && a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	leader, _ = leaderOf(t, 2*soon, a, b)
	if leader.fence() <= fence {
		t.Errorf("fence %d follows %d", leader.fence(), fence)
	}
}
