package mirror

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

// retriableProduce says that the same batch may pass later, unchanged: the
// leader moved, replicas are missing, the broker is busy or its disk is.
// Kafka's own list of retriable errors holds; KAFKA_STORAGE_ERROR is on it.
func retriableProduce(e *kerr.Error) bool {
	switch e {
	case kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.DuplicateSequenceNumber, kerr.CorruptMessage:
		// The topic may have been deleted or created anew under us, or the bytes
		// may have been damaged on their way from the source or there already: the
		// tenure looks at the world again instead of repeating itself.
		return false
	case kerr.ThrottlingQuotaExceeded:
		return true
	}
	return e.Retriable
}

// retriableFetch says that the same fetch may succeed later.
func retriableFetch(e *kerr.Error) bool {
	switch e {
	case kerr.OffsetOutOfRange, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.InconsistentTopicID, kerr.CorruptMessage:
		return false
	}
	return e.Retriable
}

// leaderMoved says that the metadata may be stale: another broker may lead by now.
func leaderMoved(e *kerr.Error) bool {
	switch e {
	case kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.ReplicaNotAvailable, kerr.KafkaStorageError:
		return true
	}
	return false
}

// errorName is Kafka's name of an error code.
func errorName(code int16) string {
	if e := (*kerr.Error)(nil); errors.As(kerr.ErrorForCode(code), &e) {
		return e.Message
	}
	return "UNKNOWN_SERVER_ERROR"
}
