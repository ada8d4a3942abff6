package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"kmirror/internal/bench"
)

// idle measures what ten thousand partitions cost in which nothing happens.
func (c *contest) idle() {
	const name, topics, partitions = "10000-idle", 10, 1000
	for i := range topics {
		c.create("east", fmt.Sprintf("idle-%d", i), partitions)
	}
	prefix := c.prefix()
	began := time.Now()
	p := c.startKmirror(prefix, "idle-.*")
	defer p.kill()
	r, err := c.quiet(p, prefix, topics, partitions, began)
	if err != nil {
		c.failed(name, ours, fmt.Errorf("%w\n%s", err, p.tail(10)))
		return
	}
	r.workload, r.who = name, ours
	c.say("%s, %s: %s, %d MiB", name, ours, r.short(), r.memory>>20)
	c.rows = append(c.rows, r)
}

// quiet waits until all is mirrored, lets it come to rest, and measures.
func (c *contest) quiet(p *process, prefix string, topics, partitions int, began time.Time) (row, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	d := &daemon{w: c.world, process: p, http: c.addr(prefix + "-http")}
	all := func() error {
		s, err := d.status()
		if err != nil {
			return err
		}
		flowing := 0
		for _, flow := range s.Flows {
			for _, topic := range flow.Topics {
				for _, partition := range topic.Partitions {
					if partition.State == "mirroring" {
						flowing++
					}
				}
			}
		}
		if flowing < topics*partitions {
			return fmt.Errorf("%d of %d partitions are mirrored", flowing, topics*partitions)
		}
		return nil
	}
	for err := all(); err != nil; err = all() {
		select {
		case <-ctx.Done():
			return row{}, err
		case <-p.ended:
			return row{}, errors.Join(errors.New("it ended"), p.err)
		case <-time.After(3 * time.Second):
		}
	}
	r := row{start: time.Since(began).Seconds(), copied: "nothing to copy"}
	select { // to rest: what was collected while it began is given back, and the answers to us are forgotten
	case <-ctx.Done():
		return r, ctx.Err()
	case <-time.After(10 * time.Second):
	}
	who := map[string]int{"mirror": p.cmd.Process.Pid, "source": c.broker["east"].cmd.Process.Pid, "target": c.broker["west"].cmd.Process.Pid, "bench": os.Getpid()}
	before := map[string]bench.Usage{}
	for name, pid := range who {
		u, err := bench.UsageOf(pid)
		if err != nil {
			return r, err
		}
		before[name] = u
	}
	busy, err := bench.MachineBusy()
	if err != nil {
		return r, err
	}
	const length = 20 * time.Second
	select {
	case <-ctx.Done():
		return r, ctx.Err()
	case <-time.After(length):
	}
	cores := map[string]float64{}
	for name, pid := range who {
		u, err := bench.UsageOf(pid)
		if err != nil {
			return r, err
		}
		cores[name] = u.Sub(before[name]).CPU().Seconds() / length.Seconds()
	}
	after, err := bench.MachineBusy()
	if err != nil {
		return r, err
	}
	memory, err := bench.MemoryOf(p.cmd.Process.Pid)
	// What it holds at rest: while it began, and answered us, it was more.
	c.note("10000-idle: %d MiB at most, while it began", memory.Peak>>20)
	r.memory, r.cores, r.source, r.target, r.busy = memory.Resident, cores["mirror"], cores["source"], cores["target"], (after-busy).Seconds()/length.Seconds()
	r.others = max(0, r.busy-cores["mirror"]-cores["source"]-cores["target"]-cores["bench"])
	return r, err
}
