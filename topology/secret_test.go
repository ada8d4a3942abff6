package topology_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"kmirror/topology"
)

func TestSecretsDoNotShow(t *testing.T) {
	sasl := topology.SASL{Mechanism: topology.MechanismPlain, User: "me", Password: topology.NewSecret("hunter2")}
	cluster := &topology.Cluster{Name: "hq", SASL: &sasl}
	asJSON, err := json.Marshal(cluster)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(cluster)
	if err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&logged, nil), slog.NewJSONHandler(&logged, nil)} {
		slog.New(handler).Info("cluster", slog.Any("sasl", sasl), slog.Any("password", sasl.Password), slog.Any("pointer", cluster.SASL))
	}
	for how, shown := range map[string]string{
		"%v": fmt.Sprintf("%v", sasl), "%+v": fmt.Sprintf("%+v", sasl), "%#v": fmt.Sprintf("%#v", sasl), "%s": fmt.Sprintf("%s", sasl), "%q": fmt.Sprintf("%q", sasl.Password),
		"%x": fmt.Sprintf("%x", sasl.Password), "json": string(asJSON), "yaml": string(asYAML), "slog": logged.String(),
	} {
		if strings.Contains(shown, "hunter2") || strings.Contains(shown, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("%s shows it: %s", how, shown)
		}
		if strings.HasPrefix(how, "%") && how != "%x" && !strings.Contains(shown, "[secret]") {
			t.Errorf("%s does not say that there is one: %s", how, shown)
		}
	}
	if sasl.Password.Reveal() != "hunter2" || sasl.Password.Empty() || !(topology.Secret{}).Empty() {
		t.Error("the value is lost")
	}
}
