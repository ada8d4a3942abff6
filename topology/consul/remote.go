package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	dialTimeout = 5 * time.Second
	// answerTimeout bounds a call that does not block.
	answerTimeout = 10 * time.Second
)

// remote is the backend that asks a Consul agent.
type remote struct{ client *api.Client }

func newRemote(config Config) (*remote, error) {
	settings := api.DefaultConfig()
	settings.Address = config.Address
	if config.Datacenter != "" {
		settings.Datacenter = config.Datacenter
	}
	if config.Token != "" {
		settings.Token = config.Token
	}
	if t := config.TLS; t != nil {
		if !strings.Contains(config.Address, "://") {
			settings.Scheme = "https"
		}
		settings.TLSConfig = api.TLSConfig{
			Address: t.ServerName, CAFile: t.CA, CertFile: t.Cert, KeyFile: t.Key, InsecureSkipVerify: t.InsecureSkipVerify,
		}
	}
	dial := config.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	}
	settings.Transport = &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dial,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   dialTimeout,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
	}
	client, err := api.NewClient(settings)
	if err != nil {
		return nil, err
	}
	return &remote{client: client}, nil
}

func write(ctx context.Context) (*api.WriteOptions, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	return (&api.WriteOptions{}).WithContext(ctx), cancel
}

// query bounds a blocking query too: Consul adds up to a sixteenth to the wait.
func query(ctx context.Context, index uint64, wait time.Duration) (*api.QueryOptions, context.CancelFunc) {
	options := &api.QueryOptions{WaitIndex: index}
	limit := answerTimeout
	if index > 0 {
		options.WaitTime = wait
		limit += wait + wait/16
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	return options.WithContext(ctx), cancel
}

func (r *remote) register(ctx context.Context, s service) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	registration := &api.AgentServiceRegistration{
		ID: s.id, Name: s.name, Meta: map[string]string{"instance": s.instance},
		Check: &api.AgentServiceCheck{
			CheckID: s.checkID, Name: "kmirror renews its membership", TTL: s.ttl.String(), Status: api.HealthPassing,
			DeregisterCriticalServiceAfter: max(4*s.ttl, time.Minute).String(),
		},
	}
	if host, port, err := net.SplitHostPort(s.http); err == nil {
		if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
			registration.Address = host
		}
		registration.Port, _ = strconv.Atoi(port)
	}
	if err := r.client.Agent().ServiceRegisterOpts(registration, api.ServiceRegisterOpts{}.WithContext(ctx)); err != nil {
		return fmt.Errorf("register service %s: %w", s.id, err)
	}
	return nil
}

func (r *remote) deregister(ctx context.Context, serviceID string) error {
	options, cancel := query(ctx, 0, 0)
	defer cancel()
	err := r.client.Agent().ServiceDeregisterOpts(serviceID, options)
	var status api.StatusError
	if errors.As(err, &status) && status.Code == http.StatusNotFound {
		return nil
	}
	if err != nil {
		return fmt.Errorf("deregister service %s: %w", serviceID, err)
	}
	return nil
}

func (r *remote) pass(ctx context.Context, checkID string) error {
	options, cancel := query(ctx, 0, 0)
	defer cancel()
	err := r.client.Agent().UpdateTTLOpts(checkID, "renewed", api.HealthPassing, options)
	var status api.StatusError
	if errors.As(err, &status) && status.Code == http.StatusNotFound {
		return errUnknownCheck
	}
	if err != nil {
		return fmt.Errorf("pass check %s: %w", checkID, err)
	}
	return nil
}

func (r *remote) createSession(ctx context.Context, name, checkID string, ttl time.Duration) (string, error) {
	options, cancel := write(ctx)
	defer cancel()
	// Not the node's own check: serf may call a node dead for a moment while the
	// instance on it renews its life, and a certain deadline would be none. Nor a
	// lock delay, 15 s by default: fences do its work.
	body := map[string]any{
		"Name": name, "TTL": ttl.String(), "Behavior": api.SessionBehaviorRelease, "LockDelay": "0s", "NodeChecks": []string{},
	}
	if checkID != "" {
		body["ServiceChecks"] = []api.ServiceCheck{{ID: checkID}}
	}
	var out struct{ ID string }
	_, err := r.client.Raw().Write("/v1/session/create", body, &out, options)
	if err != nil && strings.Contains(err.Error(), "Missing check") {
		return "", errUnknownCheck
	}
	if err != nil {
		return "", fmt.Errorf("create session: %w", err)
	}
	return out.ID, nil
}

func (r *remote) renewSession(ctx context.Context, id string) (bool, error) {
	options, cancel := write(ctx)
	defer cancel()
	entry, _, err := r.client.Session().Renew(id, options)
	if err != nil {
		return false, fmt.Errorf("renew session: %w", err)
	}
	return entry != nil, nil
}

func (r *remote) destroySession(ctx context.Context, id string) error {
	options, cancel := write(ctx)
	defer cancel()
	if _, err := r.client.Session().Destroy(id, options); err != nil {
		return fmt.Errorf("destroy session: %w", err)
	}
	return nil
}

func (r *remote) session(ctx context.Context, id string, index uint64, wait time.Duration) (bool, uint64, error) {
	options, cancel := query(ctx, index, wait)
	defer cancel()
	entry, meta, err := r.client.Session().Info(id, options)
	if err != nil {
		return false, 0, fmt.Errorf("read session: %w", err)
	}
	return entry != nil, meta.LastIndex, nil
}

func (r *remote) list(ctx context.Context, prefix string, index uint64, wait time.Duration) ([]pair, uint64, error) {
	options, cancel := query(ctx, index, wait)
	defer cancel()
	options.RequireConsistent = index == 0 // by default a server that was deposed a moment ago may still answer
	found, meta, err := r.client.KV().List(prefix, options)
	if err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", prefix, err)
	}
	pairs := make([]pair, 0, len(found))
	for _, kv := range found {
		pairs = append(pairs, pair{key: kv.Key, value: kv.Value, session: kv.Session, modifyIndex: kv.ModifyIndex})
	}
	return pairs, meta.LastIndex, nil
}

func (r *remote) keys(ctx context.Context, prefix string) ([]string, error) {
	options, cancel := query(ctx, 0, 0)
	defer cancel()
	keys, _, err := r.client.KV().Keys(prefix, "", options)
	if err != nil {
		return nil, fmt.Errorf("list keys of %s: %w", prefix, err)
	}
	return keys, nil
}

func (r *remote) apply(ctx context.Context, ops []op) (map[string]uint64, error) {
	options, cancel := query(ctx, 0, 0)
	defer cancel()
	request := make(api.TxnOps, 0, len(ops))
	for _, o := range ops {
		request = append(request, &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVOp(o.verb), Key: o.key, Value: o.value, Session: o.session, Index: o.index}})
	}
	ok, response, _, err := r.client.Txn().Txn(request, options)
	if err != nil {
		return nil, fmt.Errorf("apply transaction at %s: %w", ops[len(ops)-1].key, err)
	}
	if !ok {
		refused := &refusedError{reason: "no reason given"}
		if len(response.Errors) > 0 {
			first := response.Errors[0]
			refused.op, refused.reason = first.OpIndex, first.What
			refused.lostSession = strings.Contains(first.What, "invalid session")
		}
		return nil, refused
	}
	indexes := make(map[string]uint64, len(response.Results))
	for _, result := range response.Results {
		if result.KV != nil {
			indexes[result.KV.Key] = result.KV.ModifyIndex
		}
	}
	return indexes, nil
}
