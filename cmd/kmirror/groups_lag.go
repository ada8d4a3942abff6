package main

import (
	"context"
	"time"

	"kmirror/internal/kafka"
)

// ageSteps is how far back ages are looked for: 1 s, doubled each time, about
// two months.
const ageSteps = 23

// ages says how long ago the record at an offset was written, about: it asks a
// cluster where its partitions stood a second, two, four, ... ago, once for each
// step and as far back as somebody stands, and reckons between two of them. So
// it costs a few requests to each leader, however many groups there are.
type ages struct {
	cluster *kafka.Cluster
	now     time.Time
	ends    map[string]map[int32]int64
	steps   map[kafka.TopicPartition][]int64 // the first offset that is not older than 1 s, 2 s, 4 s, ...
}

// newAges asks for the ends of partitions. Those that do not answer are unknown.
func newAges(ctx context.Context, cluster *kafka.Cluster, partitions map[string][]int32) (*ages, error) {
	a := &ages{cluster: cluster, now: time.Now(), steps: map[kafka.TopicPartition][]int64{}}
	if len(partitions) > 0 {
		a.ends, _ = cluster.ListOffsets(ctx, partitions, kafka.Latest)
	}
	return a, ctx.Err()
}

// end is the end of a partition, -1 if it is not known.
func (a *ages) end(at kafka.TopicPartition) int64 { return known(a.ends, at.Topic, at.Partition) }

// lag is how many records are before the end, -1 if that is not known.
func (a *ages) lag(at kafka.TopicPartition, offset int64) int64 { return lag(offset, a.end(at)) }

// reach makes the ages of offsets known: the lowest of each partition.
func (a *ages) reach(ctx context.Context, lowest map[kafka.TopicPartition]int64) error {
	for step := range ageSteps {
		wanted := map[string][]int32{}
		for at, offset := range lowest {
			done := a.steps[at]
			if len(done) == step && offset >= 0 && offset < a.end(at) && (step == 0 || done[step-1] > offset) {
				wanted[at.Topic] = append(wanted[at.Topic], at.Partition)
			}
		}
		if len(wanted) == 0 {
			continue
		}
		found, _ := a.cluster.ListOffsets(ctx, wanted, a.now.Add(-age(step)).UnixMilli())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for topic, ids := range found {
			for id, offset := range ids {
				at := kafka.TopicPartition{Topic: topic, Partition: id}
				if offset < 0 { // nothing is that young
					offset = a.end(at)
				}
				a.steps[at] = append(a.steps[at], offset)
			}
		}
	}
	return nil
}

func age(step int) time.Duration { return time.Second << step }

// seconds is how old the record at an offset is, about; 0 at the end, -1 if it is
// not known.
func (a *ages) seconds(at kafka.TopicPartition, offset int64) float64 {
	switch end := a.end(at); {
	case offset < 0 || end < 0:
		return -1
	case offset >= end:
		return 0
	default:
		return ageBetween(a.steps[at], end, offset)
	}
}

// ageBetween reckons an age from where a partition stood at each step.
func ageBetween(steps []int64, end, offset int64) float64 {
	younger, since := end, 0.0
	for i, stood := range steps {
		if stood <= offset {
			part := 1.0
			if younger > stood {
				part = float64(younger-offset) / float64(younger-stood)
			}
			return since + part*(age(i).Seconds()-since)
		}
		younger, since = stood, age(i).Seconds()
	}
	if len(steps) < ageSteps {
		return -1
	}
	return since
}
