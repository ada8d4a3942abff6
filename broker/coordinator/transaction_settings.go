package coordinator

import "time"

// TransactionSettings are the broker settings that transactions obey.
type TransactionSettings struct {
	MaxTimeout      time.Duration // transaction.max.timeout.ms
	Expiration      time.Duration // transactional.id.expiration.ms
	ExpirationCheck time.Duration // transaction.remove.expired.transaction.cleanup.interval.ms
	MaxIDs          int           // transactional ids of this coordinator, long ones counted as several; ours, Kafka has no such limit
	MaxPartitions   int           // partitions of one transaction; ours
	TotalPartitions int64         // partitions of all transactions together; ours
}

// DefaultTransactionSettings are Kafka's defaults, with limits where Kafka has
// none.
func DefaultTransactionSettings() TransactionSettings {
	return TransactionSettings{
		MaxTimeout:      15 * time.Minute,
		Expiration:      7 * 24 * time.Hour,
		ExpirationCheck: time.Hour,
		MaxIDs:          100_000,
		MaxPartitions:   50_000,
		TotalPartitions: 2_000_000,
	}
}

func (s TransactionSettings) expirationCheck() time.Duration {
	if s.ExpirationCheck <= 0 {
		return time.Hour
	}
	return s.ExpirationCheck
}
