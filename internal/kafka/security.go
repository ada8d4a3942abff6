package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/xdg-go/scram"

	"kmirror/internal/wire"
	"kmirror/topology"
)

// security is the TLS and SASL configuration of a cluster, for both clients.
type security struct {
	tls   *topology.TLS
	sasl  *topology.SASL
	scram *scram.Client // for the SCRAM mechanisms; it caches the derived keys
}

func newSecurity(t *topology.Cluster) (*security, error) {
	s := &security{tls: t.TLS, sasl: t.SASL}
	if s.sasl == nil {
		return s, nil
	}
	var hash scram.HashGeneratorFcn
	switch s.sasl.Mechanism {
	case topology.MechanismPlain:
		return s, nil
	case topology.MechanismScram256:
		hash = scram.SHA256
	case topology.MechanismScram512:
		hash = scram.SHA512
	default:
		return nil, fmt.Errorf("unknown SASL mechanism %q", s.sasl.Mechanism)
	}
	client, err := hash.NewClient(s.sasl.User, s.sasl.Password.Reveal(), "")
	if err != nil { // not wrapped: it quotes what it refuses
		return nil, errors.New("SASL user or password holds characters that SCRAM forbids (RFC 4013)")
	}
	s.scram = client
	return s, nil
}

// tlsConfig reads the certificates anew, so that renewed ones count from the
// next connection on; nil for a plain cluster.
func (s *security) tlsConfig() (*tls.Config, error) {
	if s.tls == nil {
		return nil, nil
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         s.tls.ServerName,
		InsecureSkipVerify: s.tls.InsecureSkipVerify, //nolint:gosec // the operator's explicit wish
	}
	if s.tls.CA != "" {
		pem, err := os.ReadFile(s.tls.CA)
		if err != nil {
			return nil, fmt.Errorf("read tls.ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read tls.ca: %s holds no PEM certificate", s.tls.CA)
		}
	}
	if s.tls.Cert != "" {
		pair, err := tls.LoadX509KeyPair(s.tls.Cert, s.tls.Key)
		if err != nil {
			return nil, fmt.Errorf("read tls.cert and tls.key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// authenticate runs SASL on a new connection (KIP-152) and returns for how long
// the session lasts (KIP-368); 0: without end.
func (s *security) authenticate(ctx context.Context, conn *wire.Conn) (time.Duration, error) {
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Mechanism = s.sasl.Mechanism
	answer, err := do[*kmsg.SASLHandshakeResponse](ctx, conn, handshake)
	if err != nil {
		return 0, err
	}
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return 0, fmt.Errorf("SASL %s: %w (the broker offers %s)", s.sasl.Mechanism, err, strings.Join(answer.SupportedMechanisms, ", "))
	}
	if s.scram == nil {
		reply, err := s.step(ctx, conn, []byte("\x00"+s.sasl.User+"\x00"+s.sasl.Password.Reveal()))
		if err != nil {
			return 0, err
		}
		return sessionLifetime(reply), nil
	}
	conversation := s.scram.NewConversation()
	challenge := ""
	for {
		response, err := conversation.Step(challenge)
		if err != nil {
			return 0, fmt.Errorf("SASL %s as %s: %w", s.sasl.Mechanism, s.sasl.User, err)
		}
		reply, err := s.step(ctx, conn, []byte(response))
		if err != nil {
			return 0, err
		}
		challenge = string(reply.SASLAuthBytes)
		if strings.HasPrefix(challenge, "v=") { // the server's proof, to be checked before it is believed
			if _, err := conversation.Step(challenge); err != nil {
				return 0, fmt.Errorf("SASL %s as %s: the broker does not know the password: %w", s.sasl.Mechanism, s.sasl.User, err)
			}
			return sessionLifetime(reply), nil
		}
	}
}

func (s *security) step(ctx context.Context, conn *wire.Conn, token []byte) (*kmsg.SASLAuthenticateResponse, error) {
	req := kmsg.NewPtrSASLAuthenticateRequest()
	req.SASLAuthBytes = token
	reply, err := do[*kmsg.SASLAuthenticateResponse](ctx, conn, req)
	if err != nil {
		return nil, err
	}
	if err := kerr.ErrorForCode(reply.ErrorCode); err != nil {
		return nil, fmt.Errorf("SASL %s as %s: %w", s.sasl.Mechanism, s.sasl.User, explained(err, reply.ErrorMessage))
	}
	return reply, nil
}

func sessionLifetime(reply *kmsg.SASLAuthenticateResponse) time.Duration {
	return time.Duration(max(0, reply.SessionLifetimeMillis)) * time.Millisecond
}

// applyTo gives sarama the same security.
func (s *security) applyTo(config *sarama.Config) error {
	tlsConfig, err := s.tlsConfig()
	if err != nil {
		return err
	}
	if tlsConfig != nil {
		config.Net.TLS.Enable = true
		config.Net.TLS.Config = tlsConfig
	}
	if s.sasl == nil {
		return nil
	}
	config.Net.SASL.Enable = true
	config.Net.SASL.Handshake = true
	config.Net.SASL.Version = sarama.SASLHandshakeV1
	config.Net.SASL.Mechanism = sarama.SASLMechanism(s.sasl.Mechanism)
	config.Net.SASL.User = s.sasl.User
	config.Net.SASL.Password = s.sasl.Password.Reveal()
	if s.scram != nil {
		config.Net.SASL.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &saramaSCRAM{client: s.scram} }
	}
	return nil
}

// saramaSCRAM is one SCRAM conversation as sarama wants it.
type saramaSCRAM struct {
	client       *scram.Client
	conversation *scram.ClientConversation
}

// Begin starts over; user and password are those of the client already.
func (s *saramaSCRAM) Begin(_, _, _ string) error {
	s.conversation = s.client.NewConversation()
	return nil
}

// Step answers a challenge.
func (s *saramaSCRAM) Step(challenge string) (string, error) { return s.conversation.Step(challenge) }

// Done reports whether the conversation is over.
func (s *saramaSCRAM) Done() bool { return s.conversation.Done() }
