package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"kmirror/internal/bench"
	"kmirror/internal/wire"
)

// pulses lets everybody mirror a steady load of small batches, so many records
// a second over so many partitions, and times each record from when it was due
// to when a reader at the target had it.
func (c *contest) pulses(name string, rate int, partitions int32) {
	p := bench.Pulse{Rate: rate, Size: 1024, Warm: 5 * time.Second, Length: 20 * time.Second, Partitions: partitions}
	if c.quick {
		p.Length = 10 * time.Second
	}
	topic := "pulse-" + name
	c.create("east", topic, partitions)
	if err := c.prime(topic, partitions); err != nil {
		c.failed(name, "the load", err)
		return
	}
	if partitions == 1 {
		if latency, err := c.pulse(p, topic, "east", topic); err != nil {
			c.failed(name, directly, err)
		} else {
			c.rows = append(c.rows, row{workload: name, who: directly, latency: latency})
			c.say("%s, %s: %s", name, directly, c.rows[len(c.rows)-1].short())
		}
	}
	for _, one := range c.contestants(name) {
		p := p
		if one.who != ours {
			p.Warm *= 2 // a JVM compiles what runs often, by and by
		}
		r, err := c.mirroredPulse(name, one, p, topic)
		if err != nil {
			c.failed(name, one.who, err)
		} else {
			c.say("%s, %s: %s", name, one.who, r.short())
			c.rows = append(c.rows, r)
		}
		c.sweep(topic)
	}
}

// prime writes a few records into each partition, so that the topic is
// mirrored when the pulse begins.
func (c *contest) prime(topic string, partitions int32) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	primer := bench.Workload{Name: "primer", Codec: wire.CodecNone, RecordSize: 100, Records: int64(partitions), Partitions: partitions}
	return primer.Fill(ctx, c.client["east"], topic, func(int64) {})
}

func (c *contest) pulse(p bench.Pulse, topic, target, mirrored string) (bench.Latency, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.Warm+p.Length+time.Minute)
	defer cancel()
	return p.Run(ctx, c.client["east"], topic, c.client[target], mirrored)
}

func (c *contest) mirroredPulse(name string, one contestant, p bench.Pulse, topic string) (row, error) {
	prefix := c.prefix()
	mirrored := prefix + "." + topic
	began := time.Now()
	process := one.start(prefix, topic)
	defer process.kill()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	there, err := bench.Ends(ctx, c.client["east"], topic)
	if err != nil {
		return row{}, err
	}
	pids := map[string]int{"mirror": process.cmd.Process.Pid, "source": c.broker["east"].cmd.Process.Pid, "target": c.broker["west"].cmd.Process.Pid, "bench": os.Getpid()}
	copied, err := bench.Watch{Cluster: c.client["west"], Topic: mirrored, Records: there, Watched: pids, Alive: alive(process)}.Run(ctx, began)
	if err != nil {
		return row{}, fmt.Errorf("%w\n%s", err, process.tail(15))
	}
	used := func() (map[string]bench.Usage, time.Duration, time.Time) {
		all := map[string]bench.Usage{}
		for who, pid := range pids {
			u, e := bench.UsageOf(pid)
			all[who], err = u, errors.Join(err, e)
		}
		busy, e := bench.MachineBusy()
		err = errors.Join(err, e)
		return all, busy, time.Now()
	}
	var before map[string]bench.Usage
	var idle time.Duration
	var from time.Time
	p.Counted = func() { before, idle, from = used() }
	latency, pulseErr := c.pulse(p, topic, "west", mirrored)
	if pulseErr != nil {
		return row{}, fmt.Errorf("%w\n%s", pulseErr, process.tail(15))
	}
	after, busy, to := used()
	memory, memoryErr := bench.MemoryOf(process.cmd.Process.Pid)
	if err = errors.Join(err, memoryErr); err != nil {
		return row{}, err
	}
	wall := to.Sub(from).Seconds()
	cores := func(who string) float64 { return after[who].Sub(before[who]).CPU().Seconds() / wall }
	r := row{
		workload: name, who: one.who, latency: latency, records: float64(latency.Records) / wall, memory: memory.Peak,
		cores: cores("mirror"), source: cores("source"), target: cores("target"), busy: (busy - idle).Seconds() / wall,
		perRecord: cores("mirror") * wall * 1e6 / float64(latency.Records),
		start:     copied.First.Seconds(), startCPU: copied.Start["mirror"].CPU().Seconds(),
	}
	if one.who == ours {
		if err := c.profilePulse(name, p, topic, mirrored); err != nil {
			return row{}, err
		}
	}
	r.others = max(0, r.busy-r.cores-r.source-r.target-cores("bench"))
	process.kill()
	source, err := c.reader.Read(ctx, c.client["east"], topic, nil)
	if err != nil {
		return row{}, err
	}
	held, err := c.reader.Read(ctx, c.client["west"], mirrored, source)
	if err != nil {
		return row{}, err
	}
	if what := source.Compare(held); what != "" {
		return row{}, fmt.Errorf("the copy is not what the source is: %s", what)
	}
	r.copied = "equal"
	return r, nil
}

// profilePulse goes on for a few seconds under the profiler.
func (c *contest) profilePulse(name string, p bench.Pulse, topic, mirrored string) error {
	var taken chan string
	p.Warm, p.Length = time.Second, 8*time.Second
	p.Counted = func() { taken = c.takeProfile(name, int(p.Length.Seconds())) }
	if _, err := c.pulse(p, topic, "west", mirrored); err != nil {
		return err
	}
	c.keepProfile(name, <-taken)
	return nil
}
