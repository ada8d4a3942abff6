package broker

import (
	"context"
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
)

// ApiVersions: v0-4
//
// Behavior: lists what the dispatch table holds, and the finalized features:
// metadata.version, and transaction.version, by which producers choose their
// dialect (KIP-890). KIP-848 groups (group.version) are not offered, so they
// are not among the features.
//
// Version notes:
//   - any other version: UNSUPPORTED_VERSION in the v0 layout with the range of
//     ApiVersions itself, and the connection goes on (KIP-511)
//   - v3: flexible, but the response header stays at v0; the client names its
//     software, INVALID_REQUEST when it does so badly; features (KIP-584)
//   - v4: features with minimum version 0 may be listed (KAFKA-17011)

// metadataVersion is the metadata.version that Kafka 4.2 finalizes (4.2-IV1).
const metadataVersion = 29

// oldestMetadataVersion is the oldest one that Kafka 4.2 supports (3.3-IV3).
const oldestMetadataVersion = 7

// feature is one that the node finalizes, and the oldest level of it that Kafka supports.
type feature struct {
	name          string
	oldest, level int16
}

func features() []feature {
	return []feature{
		{"metadata.version", oldestMetadataVersion, metadataVersion},
		{"transaction.version", 0, coordinator.TransactionVersion2},
	}
}

func (n *Node) apiVersions(_ context.Context, r *request, req *kmsg.ApiVersionsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrApiVersionsResponse()
	if r.Version >= 3 && (!n.softwareName.MatchString(req.ClientSoftwareName) || !n.softwareName.MatchString(req.ClientSoftwareVersion)) {
		resp.ErrorCode = r.note(kerr.InvalidRequest.Code)
		return resp, nil
	}
	for key, a := range n.apis {
		if a != nil {
			k := kmsg.NewApiVersionsResponseApiKey()
			k.ApiKey, k.MinVersion, k.MaxVersion = int16(key), a.advertised, a.newest
			resp.ApiKeys = append(resp.ApiKeys, k)
		}
	}
	for _, f := range features() {
		if f.oldest > 0 || r.Version >= 4 {
			supported := kmsg.NewApiVersionsResponseSupportedFeature()
			supported.Name, supported.MinVersion, supported.MaxVersion = f.name, f.oldest, f.level
			resp.SupportedFeatures = append(resp.SupportedFeatures, supported)
		}
		finalized := kmsg.NewApiVersionsResponseFinalizedFeature()
		finalized.Name, finalized.MinVersionLevel, finalized.MaxVersionLevel = f.name, f.level, f.level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, finalized)
	}
	resp.FinalizedFeaturesEpoch = 0
	return resp, nil
}

// unsupportedAPIVersions answers a version that is too new (or no version at all).
func (n *Node) unsupportedAPIVersions(r *request) error {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.ErrorCode = r.note(kerr.UnsupportedVersion.Code)
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = keyAPIVersions, r.api.oldest, r.api.newest
	resp.ApiKeys = append(resp.ApiKeys, k)
	v0 := *r
	v0.Version = 0
	return r.conn.respond(&v0, resp)
}

// softwareNamePattern is what a client may call itself (KIP-511).
func softwareNamePattern() *regexp.Regexp {
	return regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)
}
