package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
)

// Watch looks at how a copy grows.
type Watch struct {
	Cluster *kafka.Cluster // of the copy
	Topic   string
	Records int64 // that the copy will have
	// WarmUp is the share of the records, 0 to 1, that Copied.Steady leaves out
	// at the beginning.
	WarmUp float64
	// Watched are the processes, by a name of the caller's, whose use of the
	// processor is measured.
	Watched map[string]int
	// Alive is asked every now and then; its error ends the watch.
	Alive func() error
	// Step hears how many records are there.
	Step func(records int64)
}

// Copied is what a watch saw.
type Copied struct {
	First  time.Duration    // from the start to the first record at the target
	Start  map[string]Usage // used until then, by process
	Steady Stretch          // from the end of the warm-up to the last record, without Used
	Used   map[string]Usage // in that stretch, by process
	Busy   time.Duration    // of all processors, in that stretch; 0: not told
	Whole  time.Duration    // from the start to the last record
	All    map[string]Usage // used in the whole time
}

// pace is how often the copy is looked at: the error of every time here, and
// some work for the target.
const pace = 10 * time.Millisecond

// Run watches until the copy has all its records. began is when the mirror was
// started; the processes are expected to have used nothing before.
func (w Watch) Run(ctx context.Context, began time.Time) (Copied, error) {
	var c Copied
	var base map[string]Usage
	var busy time.Duration
	var from, seen int64
	var fromAt time.Time
	leaders, err := w.appears(ctx)
	if err != nil {
		return c, err
	}
	for ticker := time.NewTicker(pace); ; {
		now, err := ends(ctx, w.Cluster, w.Topic, leaders)
		if err != nil {
			return c, err
		}
		at := time.Now()
		if w.Step != nil && now > seen {
			w.Step(now)
		}
		if seen == 0 && now > 0 {
			c.First = at.Sub(began)
			if c.Start, err = w.used(); err != nil {
				return c, err
			}
		}
		seen = now
		if base == nil && float64(now) >= w.WarmUp*float64(w.Records) && now > 0 {
			from, fromAt = now, at
			if base, err = w.used(); err != nil {
				return c, err
			}
			busy, _ = MachineBusy() // not told: stays 0
		}
		if now >= w.Records {
			if c.All, err = w.used(); err != nil {
				return c, err
			}
			c.Used = map[string]Usage{}
			for name, u := range c.All {
				c.Used[name] = u.Sub(base[name])
			}
			if after, err := MachineBusy(); err == nil {
				c.Busy = after - busy
			}
			c.Whole = at.Sub(began)
			c.Steady = Stretch{Wall: at.Sub(fromAt), Records: now - from, Share: float64(now-from) / float64(w.Records)}
			ticker.Stop()
			return c, nil
		}
		if err := w.wait(ctx, ticker); err != nil {
			ticker.Stop()
			return c, fmt.Errorf("%s has %d of %d records: %w", w.Topic, now, w.Records, err)
		}
	}
}

func (w Watch) wait(ctx context.Context, ticker *time.Ticker) error {
	if w.Alive != nil {
		if err := w.Alive(); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-ticker.C:
		return nil
	}
}

// appears waits until the copy's topic is there.
func (w Watch) appears(ctx context.Context) ([]int32, error) {
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for {
		leaders, err := leadersOf(ctx, w.Cluster, w.Topic)
		if err == nil {
			return leaders, nil
		}
		if ke := (*kerr.Error)(nil); !errors.As(err, &ke) {
			return nil, err
		}
		if err := w.wait(ctx, ticker); err != nil {
			return nil, fmt.Errorf("%s does not appear in %s: %w", w.Topic, w.Cluster.Name(), err)
		}
	}
}

func (w Watch) used() (map[string]Usage, error) {
	all := map[string]Usage{}
	for name, pid := range w.Watched {
		u, err := UsageOf(pid)
		if err != nil {
			return nil, fmt.Errorf("what %s used: %w", name, err)
		}
		all[name] = u
	}
	return all, nil
}

// ends adds up the ends of all partitions. A partition whose leader is not
// there yet counts as empty.
func ends(ctx context.Context, cluster *kafka.Cluster, topic string, leaders []int32) (int64, error) {
	requests := map[int32]*kmsg.ListOffsetsRequest{}
	for partition, leader := range leaders {
		request := requests[leader]
		if request == nil {
			request = kmsg.NewPtrListOffsetsRequest()
			request.ReplicaID = -1
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = topic
			request.Topics = append(request.Topics, t)
			requests[leader] = request
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp, p.CurrentLeaderEpoch = int32(partition), kafka.Latest, -1
		request.Topics[0].Partitions = append(request.Topics[0].Partitions, p)
	}
	var sum int64
	for leader, request := range requests {
		response, err := cluster.RequestBroker(ctx, leader, request)
		if err != nil {
			return 0, err
		}
		answer, ok := response.(*kmsg.ListOffsetsResponse)
		if !ok {
			return 0, errors.New("a broker's answer to ListOffsets is none")
		}
		for _, t := range answer.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 {
					sum += max(0, p.Offset)
				}
			}
		}
	}
	return sum, nil
}

// Ends adds up the end offsets of all partitions of a topic that is there.
func Ends(ctx context.Context, cluster *kafka.Cluster, topic string) (int64, error) {
	leaders, err := leadersOf(ctx, cluster, topic)
	if err != nil {
		return 0, err
	}
	return ends(ctx, cluster, topic, leaders)
}
