package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeProducers: v0
//
// Behavior: the producers that a partition remembers, with the first offset of
// the transaction that each has open there (KIP-664). A partition given twice
// is described once.
func (n *Node) describeProducers(_ context.Context, r *request, req *kmsg.DescribeProducersRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeProducersResponse()
	seen := make(map[partitionKey]bool)
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewDescribeProducersResponseTopic()
		rt.Topic = t.Topic
		for _, partition := range t.Partitions {
			key := partitionKey{topic: t.Topic, partition: partition}
			if seen[key] {
				continue
			}
			seen[key] = true
			rp := kmsg.NewDescribeProducersResponseTopicPartition()
			rp.Partition = partition
			if err := n.listProducers(t.Topic, partition, &rp); err != nil {
				rp.ErrorCode, rp.ErrorMessage = r.failMessage(err)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func (n *Node) listProducers(topicName string, partition int32, rp *kmsg.DescribeProducersResponseTopicPartition) error {
	topic, err := n.topicFor(false, topicName, [16]byte{})
	if err != nil {
		return err
	}
	log, _, err := n.leading(topic, partition)
	if err != nil {
		return err
	}
	for _, p := range log.Producers() {
		a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		a.ProducerID, a.ProducerEpoch = p.ID, int32(p.Epoch)
		a.LastSequence, a.LastTimestamp = p.LastSequence, p.LastTimestamp
		a.CoordinatorEpoch, a.CurrentTxnStartOffset = p.CoordinatorEpoch, p.TransactionFirst
		rp.ActiveProducers = append(rp.ActiveProducers, a)
	}
	return nil
}
