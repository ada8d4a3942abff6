// Package bench makes loads, watches a mirror carry them over, and proves that
// the copy is what it was made from.
//
// It is used by `kmirror bench` and by the comparison with MirrorMaker 2 in
// integration/. It knows clusters, topics and processes, but no mirror: what
// carries the records, and how it is started, is the caller's.
//
// What it promises:
//
//   - A figure that was not measured is absent, never guessed; what a platform
//     does not tell (CPU of another process, outside Linux) is an error.
//   - A copy is compared record by record: key, value, headers and timestamp,
//     in the order of each partition ([Read], [Sum.Compare]). The source topic
//     as it stands is the reference, so a load need not arrive in order.
//   - Latency counts from when a record was due, not from when it could be
//     sent ([Pulse]): a mirror that stalls, and holds up the load with it,
//     cannot hide the records that were waiting meanwhile.
//   - It writes only to topics that it was told to, and creates none.
package bench

import (
	"fmt"
	"time"

	"kmirror/internal/wire"
)

// Workload is one kind of load, in bytes and records.
type Workload struct {
	Name       string
	Codec      wire.Codec
	Records    int64 // in all
	RecordSize int   // bytes of a value
	BatchSize  int   // bytes of values that a batch gathers before they are compressed; 0: one record each
	Partitions int32
	Keys       int64 // how many keys there are, taken at random; 0: every record has its own
}

// perBatch is how many records a batch holds.
func (w Workload) perBatch() int64 {
	return max(1, int64(w.BatchSize/max(1, w.RecordSize)))
}

// Stretch is the part of a copy between two moments.
type Stretch struct {
	Wall    time.Duration
	Records int64
	Share   float64 // of all records, 0 to 1
	Used    Usage   // by the processes that were watched, in this time
}

// Rate is per second what all is in total: bytes, say.
func (s Stretch) Rate(all int64) float64 {
	if s.Wall <= 0 {
		return 0
	}
	return float64(all) * s.Share / s.Wall.Seconds()
}

// String shows the stretch for people.
func (s Stretch) String() string {
	return fmt.Sprintf("%d records in %v", s.Records, s.Wall.Round(time.Millisecond))
}
