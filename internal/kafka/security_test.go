package kafka_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
	"kmirror/topology"
)

const password = "pencil-and-eraser"

func TestSASL(t *testing.T) {
	mechanisms := []string{topology.MechanismPlain, topology.MechanismScram256, topology.MechanismScram512}
	for _, mechanism := range mechanisms {
		t.Run(mechanism, func(t *testing.T) {
			fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"), kfake.EnableSASL(), kfake.Superuser(mechanism, "mirror", password))
			if err != nil {
				t.Fatal(err)
			}
			defer fake.Close()
			at := &topology.Cluster{Name: "hq", Bootstrap: fake.ListenAddrs(), SASL: &topology.SASL{Mechanism: mechanism, User: "mirror", Password: topology.NewSecret(password)}}
			good := client(t, at)
			mustAppend(t, good, "orders", 0, "a")
			admin, err := good.Admin(t.Context())
			if err != nil {
				t.Fatalf("sarama: %v", err)
			}
			if topics, err := admin.ListTopics(); err != nil || len(topics) != 1 {
				t.Errorf("sarama: %v, %v", topics, err)
			}

			fake.ControlKey(36, func(req kmsg.Request) (kmsg.Response, error, bool) { // as Kafka does; the fake only hangs up
				fake.KeepControl()
				resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
				resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
				resp.ErrorMessage = new("Authentication failed: invalid user or password")
				return resp, nil, true
			})
			wrong := *at
			wrong.SASL = &topology.SASL{Mechanism: mechanism, User: "mirror", Password: topology.NewSecret("wrong-" + password)}
			bad := client(t, &wrong)
			start := time.Now()
			_, appendErr := bad.Append(t.Context(), "orders", 0, records("a")) // must not try forever
			_, adminErr := bad.Admin(t.Context())
			for _, err := range []error{appendErr, adminErr} {
				if !errors.Is(err, kerr.SaslAuthenticationFailed) || !strings.Contains(err.Error(), mechanism+" as mirror") || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), password) {
					t.Errorf("a wrong password: %v", err)
				}
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("a wrong password took %s", took)
			}
			none := *at
			none.SASL = nil
			if _, err := client(t, &none).Metadata(t.Context()); err == nil {
				t.Error("without SASL: no error")
			}
		})
	}
}

func TestUnknownMechanism(t *testing.T) {
	_, err := kafka.New(&topology.Cluster{Name: "hq", Bootstrap: []string{"x:1"}, SASL: &topology.SASL{Mechanism: "GSSAPI", Password: topology.NewSecret(password)}}, kafka.Options{})
	if err == nil || !strings.Contains(err.Error(), "hq") || !strings.Contains(err.Error(), "GSSAPI") {
		t.Errorf("got %v", err)
	}
	forbidden := "bell" + string(rune(7)) + password
	_, err = kafka.New(&topology.Cluster{Name: "hq", Bootstrap: []string{"x:1"}, SASL: &topology.SASL{Mechanism: topology.MechanismScram256, User: "u", Password: topology.NewSecret(forbidden)}}, kafka.Options{})
	if err == nil || strings.Contains(err.Error(), password) {
		t.Errorf("a password that SCRAM forbids: %v", err)
	}
}

// certificate makes a certificate for 127.0.0.1 that signs itself.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"kafka.example.org"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func TestTLS(t *testing.T) {
	pair, ca := certificate(t)
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	for name, tc := range map[string]struct {
		tls  *topology.TLS
		want string // of the error; empty: it works
	}{
		"the right authority":        {&topology.TLS{CA: ca}, ""},
		"another name, as expected":  {&topology.TLS{CA: ca, ServerName: "kafka.example.org"}, ""},
		"not verified":               {&topology.TLS{InsecureSkipVerify: true}, ""},
		"the system's authorities":   {&topology.TLS{}, "certificate"},
		"another name":               {&topology.TLS{CA: ca, ServerName: "other.example.org"}, "other.example.org"},
		"an authority that is none":  {&topology.TLS{CA: "/dev/null"}, "/dev/null"},
		"an authority that is gone":  {&topology.TLS{CA: "/nowhere/ca.pem"}, "tls.ca"},
		"a certificate that is gone": {&topology.TLS{CA: ca, Cert: "/nowhere/a", Key: "/nowhere/b"}, "tls.cert"},
		"a plain client":             {nil, "tried"},
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, &topology.Cluster{Name: "hq", Bootstrap: fake.ListenAddrs(), TLS: tc.tls})
			_, err := c.Metadata(t.Context())
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want an error about %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if base := mustAppend(t, c, "orders", 0, strings.Repeat("large ", 20_000)); base < 0 {
				t.Error("no offset")
			}
			admin, err := c.Admin(t.Context())
			if err != nil {
				t.Fatalf("sarama: %v", err)
			}
			if _, err := admin.ListTopics(); err != nil {
				t.Errorf("sarama: %v", err)
			}
		})
	}
}
