package mirror

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
)

// clusterID asks a cluster who it is, by a Metadata request for no topics: every
// broker answers it, and it costs next to nothing.
func clusterID(ctx context.Context, c *kafka.Cluster) (string, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	raw, err := c.Request(ctx, req)
	if err != nil {
		return "", err
	}
	resp, ok := raw.(*kmsg.MetadataResponse)
	if !ok {
		return "", fmt.Errorf("cluster id of %s: answered with %T", c.Name(), raw)
	}
	if resp.ClusterID == nil {
		return "", nil
	}
	return *resp.ClusterID, nil
}
