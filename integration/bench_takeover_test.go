package integration_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"kmirror/internal/bench"
)

// takeovers measures how long a mirror is away after kill -9, while a thousand
// records a second go on: until every partition of the copy has new records.
// Once the same instance is started again, and once another one stands by.
func (c *contest) takeovers() {
	rounds := c.rounds
	for _, one := range c.contestants("takeover") {
		if one.who == untuned {
			continue // what tuning changes does not touch this
		}
		if one.who != ours {
			rounds = 1
		}
		c.takeover("kill -9, restart", one.who, rounds, func(prefix, topic string) (first, second *process, again func() *process) {
			again = func() *process { return one.start(prefix, topic) }
			return again(), nil, again
		})
	}
	c.consul()
	c.takeover("kill -9, standby", ours, 1, func(prefix, topic string) (first, second *process, again func() *process) {
		return c.startMember(prefix, topic, "first"), c.startMember(prefix, topic, "second"), nil
	})
	if c.peers == "none" {
		return
	}
	c.takeover("kill -9, standby", tuned, 1, func(prefix, topic string) (first, second *process, again func() *process) {
		var two [2]*process
		for i := range two {
			// As two of them divide the work, and as soon as they can: by default
			// they wait five minutes for a worker that went.
			two[i] = c.startMM2(prefix, topic, true, "dedicated.mode.enable.internal.rest = true",
				fmt.Sprintf("listeners = http://%s", c.addr(fmt.Sprintf("rest-%d", i+1))), "west.scheduled.rebalance.max.delay.ms = 0")
		}
		return two[0], two[1], nil
	})
}

// startMember starts one of several instances of kmirror that meet in Consul.
func (c *contest) startMember(prefix, topics, name string) *process {
	d := c.daemon(prefix+"-"+name, kmirrorFlow(prefix, topics)+`
coordination:
  consul: {address: {{addr "consul"}}, prefix: `+prefix+`, ttl: 10s}
`)
	return start(c.t, c.dir, d.name, nil, built(c.t), "run", "--quiet", "--config", d.config)
}

// takeover kills the first of the mirrors that begin starts, and waits for what
// the second does, or the first when it is started again.
func (c *contest) takeover(workload, who string, rounds int, begin func(prefix, topic string) (first, second *process, again func() *process)) {
	var found []row
	for range rounds {
		r, err := c.oneTakeover(workload, who, begin)
		c.sweep()
		if err != nil {
			c.failed(workload, who, err)
			return
		}
		c.say("%s, %s: %s, %s", workload, who, r.short(), r.copied)
		found = append(found, r)
	}
	slices.SortFunc(found, func(a, b row) int { return int((a.back - b.back) * 1e6) })
	c.rows = append(c.rows, found[len(found)/2])
}

func (c *contest) oneTakeover(workload, who string, begin func(prefix, topic string) (first, second *process, again func() *process)) (row, error) {
	const partitions, perSecond = 4, 1000
	c.entered++
	topic := fmt.Sprintf("takeover-%d", c.entered)
	prefix := c.prefix()
	mirrored := prefix + "." + topic
	c.create("east", topic, partitions)
	stop := c.steadily(topic, partitions, perSecond)
	defer stop()
	first, second, again := begin(prefix, topic)
	defer func() { first.kill() }()
	if second != nil {
		defer second.kill()
		if err := c.bothWork(who, first, second, mirrored); err != nil {
			return row{}, err
		}
	}
	if err := c.follows(topic, mirrored, 90*time.Second); err != nil {
		return row{}, fmt.Errorf("%w\n%s", err, first.tail(15))
	}
	admin := c.admin("west")
	killed := time.Now()
	first.kill()
	time.Sleep(5 * time.Millisecond) // what it had sent is there by then, or soon: the margin below is for that
	at := c.ends(admin, mirrored)
	if again != nil {
		first = again()
	}
	back := func() bool {
		now := c.ends(admin, mirrored)
		for partition := range int32(partitions) {
			// More than what was under way, and the markers of a fence.
			if now[partition] < at[partition]+20 {
				return false
			}
		}
		return true
	}
	const limit = 2 * time.Minute
	for !back() {
		if time.Since(killed) > limit {
			return row{}, fmt.Errorf("not every partition goes on %v after the kill", limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
	r := row{workload: workload, who: who, back: time.Since(killed).Seconds()}
	stop()
	var err error
	r.copied, err = c.afterwards(topic, mirrored)
	if err == nil && who == ours && r.copied != "equal" {
		err = fmt.Errorf("after the takeover the copy has %s", r.copied)
	}
	return r, err
}

// bothWork waits until both members share the work, where they say so.
func (c *contest) bothWork(who string, first, second *process, mirrored string) error {
	if who != ours {
		time.Sleep(30 * time.Second) // a MirrorMaker 2 that is asked answers nothing about it
		return nil
	}
	d := &daemon{w: c.world, process: second, http: c.addr(second.name + "-http")}
	deadline := time.Now().Add(60 * time.Second)
	for {
		owners := map[string]bool{}
		if s, err := d.status(); err == nil {
			for _, flow := range s.Flows {
				for _, topic := range flow.Topics {
					if topic.Target != mirrored {
						continue
					}
					for _, p := range topic.Partitions {
						instance, _, _ := strings.Cut(p.Owner, "/") // and the life it is in
						owners[instance] = true
					}
				}
			}
		}
		if owners[first.name] && owners[second.name] {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%v share the work, not both\n%s", owners, second.tail(10))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// steadily writes records to a topic of the source until it is told to stop.
func (c *contest) steadily(topic string, partitions int32, perSecond int) (stop func()) {
	client := c.world.client("east", kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for turn := int32(0); ctx.Err() == nil; {
			for range perSecond / 100 {
				client.Produce(context.Background(), &kgo.Record{Topic: topic, Partition: turn % partitions, Value: fmt.Appendf(nil, "record %d", turn)}, nil)
				turn++
			}
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
	}()
	return func() {
		cancel()
		<-done
		_ = client.Flush(c.ctx(30 * time.Second)) // what is not there is missing in source and copy
	}
}

// follows waits until the copy is less than two seconds behind, and grows.
func (c *contest) follows(topic, mirrored string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		end, err := bench.Ends(ctx, c.client["east"], topic)
		if err != nil {
			return err
		}
		// Not there yet counts as nothing.
		if have, err := bench.Ends(ctx, c.client["west"], mirrored); err == nil && have > end-2000 && have > 3000 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not follow %s within %v", mirrored, topic, within)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// afterwards says what the copy is when everything has been carried.
func (c *contest) afterwards(topic, mirrored string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	source, err := c.reader.Read(ctx, c.client["east"], topic, nil)
	if err != nil {
		return "", err
	}
	held, err := c.reader.Read(ctx, c.client["west"], mirrored, source)
	if err != nil {
		return "", err
	}
	what := source.Compare(held)
	if what == "" {
		return "equal", nil
	}
	if more := held.Total().Records - source.Total().Records; more > 0 {
		return fmt.Sprintf("%d doubled", more), nil
	}
	return what, nil
}
