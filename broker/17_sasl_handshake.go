package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// SaslHandshake: v0-1
//
// Behavior: this listener is plain text without SASL, and Kafka answers a
// handshake there with ILLEGAL_SASL_STATE and no mechanisms.
// SaslAuthenticate is not offered.
func (n *Node) saslHandshake(_ context.Context, r *request, _ *kmsg.SASLHandshakeRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrSASLHandshakeResponse()
	resp.ErrorCode = r.note(kerr.IllegalSaslState.Code)
	return resp, nil
}
