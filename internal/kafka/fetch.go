package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// FetchResult is one partition's part of a fetch.
type FetchResult struct {
	HighWatermark int64
	LastStable    int64 // -1 when the broker does not say
	LogStart      int64 // -1 when the broker does not say
	Records       []byte
	Err           error // a *kerr.Error such as OFFSET_OUT_OF_RANGE; nil: fine
	Aborted       []AbortedTxn
}

// AbortedTxn says that what a producer wrote in its transaction from an offset
// on was aborted; only reads of committed records are told.
type AbortedTxn struct {
	ProducerID  int64
	FirstOffset int64
}

// Fetch reads one partition from offset on, from its leader. The broker answers
// when there is something to read or after maxWait (at most half the request
// timeout). Records are raw batches, at most maxBytes but for the first of
// them, which comes whole; the last may be cut. It retries as RequestLeader
// does; what else the broker says of the partition is in Err.
func (c *Cluster) Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, readCommitted bool, maxWait time.Duration) (FetchResult, error) {
	build := func(t *Topic) kmsg.Request {
		req := kmsg.NewPtrFetchRequest()
		req.MaxWaitMillis = int32(max(0, min(maxWait, c.options.RequestTimeout/2)).Milliseconds())
		req.MinBytes = 1
		req.MaxBytes = maxBytes
		req.SessionEpoch = -1 // no session (KIP-227)
		if readCommitted {
			req.IsolationLevel = 1
		}
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = t.Name, t.ID
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition = partition
		rp.FetchOffset = offset
		rp.PartitionMaxBytes = maxBytes
		rp.CurrentLeaderEpoch = -1
		if int(partition) < len(t.Partitions) {
			rp.CurrentLeaderEpoch = t.Partitions[partition].LeaderEpoch
		}
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		if t.ID != [16]byte{} {
			return AtMost(req, req.MaxVersion())
		}
		return req
	}
	var found *kmsg.FetchResponseTopicPartition
	_, err := c.toLeader(ctx, topic, partition, build, func(resp kmsg.Response) error {
		p, err := fetchedPartition(resp, partition)
		if err != nil {
			return err
		}
		found = p
		if moved(p.ErrorCode) {
			return kerr.ErrorForCode(p.ErrorCode)
		}
		return nil
	})
	if err != nil {
		return FetchResult{}, c.errorf(err, "fetch %s/%d at %d", topic, partition, offset)
	}
	r := FetchResult{
		HighWatermark: found.HighWatermark,
		LastStable:    found.LastStableOffset,
		LogStart:      found.LogStartOffset,
		Records:       found.RecordBatches,
		Err:           kerr.ErrorForCode(found.ErrorCode),
	}
	for _, a := range found.AbortedTransactions {
		r.Aborted = append(r.Aborted, AbortedTxn{ProducerID: a.ProducerID, FirstOffset: a.FirstOffset})
	}
	return r, nil
}

// fetchedPartition is the only partition of a fetch response.
func fetchedPartition(resp kmsg.Response, partition int32) (*kmsg.FetchResponseTopicPartition, error) {
	fetched, err := as[*kmsg.FetchResponse](resp, nil)
	if err != nil {
		return nil, err
	}
	if err := kerr.ErrorForCode(fetched.ErrorCode); err != nil {
		return nil, err
	}
	for i := range fetched.Topics {
		for j := range fetched.Topics[i].Partitions {
			if p := &fetched.Topics[i].Partitions[j]; p.Partition == partition {
				return p, nil
			}
		}
	}
	return nil, fmt.Errorf("the response lacks partition %d", partition)
}
