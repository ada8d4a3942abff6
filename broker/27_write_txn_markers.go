package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
)

// WriteTxnMarkers: v1-2
//
// Behavior: ends a producer's transaction in the partitions named, whatever its
// coordinator thinks: brokers send it to each other, administrators to get rid
// of a transaction that hangs. This node writes its own markers without it.
//
// Version notes:
//   - v1: flexible
//   - v2: the version of the transaction (KIP-1228)
func (n *Node) writeTxnMarkers(ctx context.Context, r *request, req *kmsg.WriteTxnMarkersRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrWriteTxnMarkersResponse()
	for i := range req.Markers {
		m := &req.Markers[i]
		marker := coordinator.Marker{
			ProducerID: m.ProducerID, Epoch: m.ProducerEpoch, Commit: m.Committed, CoordinatorEpoch: m.CoordinatorEpoch,
		}
		if r.Version >= 2 {
			marker.Version = int16(m.TransactionVersion)
		}
		var partitions []coordinator.TopicPartition
		for _, t := range m.Topics {
			for _, p := range t.Partitions {
				partitions = append(partitions, coordinator.TopicPartition{Topic: t.Topic, Partition: p})
			}
		}
		errs := n.writeMarkers(ctx, marker, partitions)
		rm := kmsg.NewWriteTxnMarkersResponseMarker()
		rm.ProducerID = m.ProducerID
		for _, t := range m.Topics {
			rt := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewWriteTxnMarkersResponseMarkerTopicPartition()
				rp.Partition, rp.ErrorCode = p, r.fail(errs[0])
				errs = errs[1:]
				rt.Partitions = append(rt.Partitions, rp)
			}
			rm.Topics = append(rm.Topics, rt)
		}
		resp.Markers = append(resp.Markers, rm)
	}
	return resp, nil
}
