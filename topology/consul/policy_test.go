package consul_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"kmirror/topology/consul"
)

// The policy in deploy is all that an instance needs, and it needs it.
func TestPolicyIsEnough(t *testing.T) {
	const management = "11111111-2222-3333-4444-555555555555"
	flags := filepath.Join(t.TempDir(), "acl.hcl")
	rules := `acl { enabled = true, default_policy = "deny", enable_token_persistence = false, tokens { initial_management = "` + management + `", agent = "` + management + `" } }`
	if err := os.WriteFile(flags, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	policy, err := os.ReadFile(filepath.Join("..", "..", "deploy", "consul-policy.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	a := realConsulAs(t, management, "-config-file="+flags)
	if _, _, err := a.api.ACL().PolicyCreate(&api.ACLPolicy{Name: "kmirror", Rules: string(policy)}, nil); err != nil {
		t.Fatal(err)
	}
	token, _, err := a.api.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: "kmirror"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	instance := realWorld{&agent{address: a.address, token: token.SecretID, api: a.api}, "kmirror"}

	for _, s := range []story{
		{"members come and go", membersComeAndGo},
		{"a term publishes until it is fenced", termPublishes},
		{"what is held goes with its life", heldGoesWithLife},
		{"large values are whole", largeValues},
		{"the dead are swept", deadAreSwept},
		{"a killed process does not wait for itself", killedProcess},
	} {
		t.Run(s.name, func(t *testing.T) { s.tell(t, instance) })
	}
	t.Run("services", func(t *testing.T) { servicesAreRegistered(t, instance) })
	t.Run("no token", func(t *testing.T) {
		var log strings.Builder
		config := instance.config(t, "edge-9")
		config.Token, config.Logger = "66666666-2222-3333-4444-555555555555", slog.New(slog.NewTextHandler(&log, nil))
		client, err := consul.New(config)
		if err != nil {
			t.Fatal(err)
		}
		tryToJoin(t, client, time.Second)
		if !strings.Contains(log.String(), "ACL not found") || strings.Contains(log.String(), config.Token) {
			t.Errorf("the log does not say why, or shows the token:\n%s", log.String())
		}
	})
	t.Run("beyond the prefix", func(t *testing.T) {
		var log strings.Builder
		config := instance.config(t, "edge-9")
		config.Prefix, config.Logger = "others", slog.New(slog.NewTextHandler(&log, nil))
		client, err := consul.New(config)
		if err != nil {
			t.Fatal(err)
		}
		tryToJoin(t, client, time.Second)
		if !strings.Contains(log.String(), "Permission denied") || strings.Contains(log.String(), token.SecretID) {
			t.Errorf("the log does not say why, or shows the token:\n%s", log.String())
		}
	})
	if keys, _, err := a.api.KV().Keys("others", "", nil); err != nil || len(keys) > 0 {
		t.Errorf("keys beyond the prefix: %v, %v", keys, err)
	}
}
