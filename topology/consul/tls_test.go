package consul_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"kmirror/topology/consul"
)

// tryToJoin lets a client try for a while; it must not succeed.
func tryToJoin(t *testing.T, client *consul.Client, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := client.Join(ctx, nil, func(context.Context, string, func() time.Time) error { return errors.New("joined") }); err != nil {
		t.Error(err)
	}
}

// authority makes certificates, in files.
type authority struct {
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func (a *authority) issue(t *testing.T, name string, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, IsCA: a.cert == nil,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == nil {
		a.key = private
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// Over TLS with client certificates, by both ways to write the address.
func TestTLS(t *testing.T) {
	ca := &authority{dir: t.TempDir()}
	root, _ := ca.issue(t, "authority", 1)
	serverCert, serverKey := ca.issue(t, "consul.test", 2)
	clientCert, clientKey := ca.issue(t, "kmirror.test", 3)
	port := freePorts(t, 1)[0]
	settings := filepath.Join(ca.dir, "tls.hcl")
	if err := os.WriteFile(settings, fmt.Appendf(nil, `
ports { https = %d }
tls { https { ca_file = %q, cert_file = %q, key_file = %q, verify_incoming = true } }`, port, root, serverCert, serverKey), 0o600); err != nil {
		t.Fatal(err)
	}
	a := realConsul(t, "-config-file="+settings)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	good := consul.TLS{CA: root, Cert: clientCert, Key: clientKey, ServerName: "consul.test"}

	for _, address := range []string{address, "https://" + address} {
		config := a.world().config(t, "edge-1")
		config.Address, config.TLS = address, &good
		client, err := consul.New(config)
		if err != nil {
			t.Fatal(err)
		}
		done := errors.New("joined")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		mustBe(t, client.Join(ctx, nil, func(context.Context, string, func() time.Time) error { return done }), done)
		cancel()
	}
	for what, c := range map[string]struct {
		tls  consul.TLS
		want string
	}{
		// Under TLS 1.3 the refusal comes after the client's side of the handshake, so
		// that HTTP/2 may meet the closed connection before it.
		"no certificate":       {consul.TLS{CA: root, ServerName: "consul.test"}, "certificate required|conn could not be established"},
		"an unknown authority": {consul.TLS{Cert: clientCert, Key: clientKey}, "unknown authority"},
		"another name":         {consul.TLS{CA: root, Cert: clientCert, Key: clientKey, ServerName: "other.test"}, "not other.test"},
	} {
		var log strings.Builder
		config := a.world().config(t, "edge-1")
		config.Address, config.TLS, config.Logger = address, &c.tls, slog.New(slog.NewTextHandler(&log, nil))
		client, err := consul.New(config)
		if err != nil {
			t.Fatal(err)
		}
		tryToJoin(t, client, 300*time.Millisecond)
		if !regexp.MustCompile(c.want).MatchString(log.String()) {
			t.Errorf("%s: the log does not say %q:\n%s", what, c.want, log.String())
		}
	}
	config := a.world().config(t, "edge-1")
	config.TLS = &consul.TLS{CA: filepath.Join(ca.dir, "missing.pem")}
	if _, err := consul.New(config); err == nil || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("a missing file: got %v", err)
	}
}
