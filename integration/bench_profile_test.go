package integration_test

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kmirror/internal/bench"
)

// profile says where the CPU time of a kmirror went that carried a workload.
type profile struct {
	workload string
	top      string // pprof's own table
	kinds    []share
	total    time.Duration
}

type share struct {
	kind string
	time time.Duration
}

// kinds tell what a stack is about by its innermost frame that says so. The
// first that matches counts.
func kinds() []struct{ kind, frame string } {
	return []struct{ kind, frame string }{
		{"garbage collection", "runtime.gcBgMarkWorker"},
		{"garbage collection", "runtime.gcAssistAlloc"},
		{"garbage collection", "runtime.bgsweep"},
		{"garbage collection", "runtime.bgscavenge"},
		{"writes to sockets (the kernel's copy, and what TCP does with it)", "internal/poll.(*FD).Write"},
		{"writes to sockets (the kernel's copy, and what TCP does with it)", "internal/poll.(*FD).Writev"},
		{"reads from sockets (the kernel's copy)", "internal/poll.(*FD).Read"},
		{"reads from sockets (the kernel's copy)", "internal/poll.(*FD).RawRead"},
		{"checksums", "hash/crc32."},
		{"compression", "github.com/klauspost/compress"},
		{"compression", "github.com/pierrec/lz4"},
		{"checksums", "kmirror/internal/wire.ShiftCRC"},
		{"waiting and waking (scheduler, epoll, futex)", "runtime.schedule"},
		{"waiting and waking (scheduler, epoll, futex)", "runtime.findRunnable"},
		{"waiting and waking (scheduler, epoll, futex)", "runtime.netpoll"},
		{"waiting and waking (scheduler, epoll, futex)", "runtime.futex"},
		{"waiting and waking (scheduler, epoll, futex)", "runtime.ready"},
		{"waiting and waking (scheduler, epoll, futex)", "runtime.mcall"},
		{"waiting and waking (scheduler, epoll, futex)", "runtime.mstart"},
		{"waiting and waking (scheduler, epoll, futex)", "runtime.sysmon"},
		{"copies in user space", "runtime.memmove"},
		{"allocation", "runtime.mallocgc"},
		{"reading and editing batches", "kmirror/internal/wire."},
		{"ledger and map", "kmirror/checkpoint."},
		{"the mirror's own decisions", "kmirror/mirror."},
		{"other clients of the clusters", "kmirror/internal/kafka."},
		{"other clients of the clusters", "github.com/IBM/sarama"},
		{"start: modules, flags, configuration", "runtime.doInit"},
		{"start: modules, flags, configuration", "main."},
	}
}

// String is a profile as the documentation has it.
func (p profile) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s: %.2f s of CPU\n\n", p.workload, p.total.Seconds())
	for _, s := range p.kinds {
		fmt.Fprintf(&out, "    %5.1f %%  %s\n", 100*s.time.Seconds()/p.total.Seconds(), s.kind)
	}
	out.WriteString("\n" + p.top)
	return out.String()
}

// profileLoad lets kmirror carry the load once more, under the profiler.
func (c *contest) profileLoad(workload string, one contestant, topic string, source bench.Log, before row) {
	file := ""
	_, err := c.carry(workload, one, topic, source, func() (finish func()) {
		taken := c.takeProfile(workload, int(math.Ceil(before.whole.Seconds()+.5)))
		return func() { file = <-taken }
	})
	c.sweep(topic)
	if err != nil {
		c.failed(workload, ours+" under the profiler", err)
		return
	}
	c.keepProfile(workload, file)
}

// takeProfile fetches a profile from the instance that runs, from its start on.
// The file's name comes when it is there; empty: there is none.
func (c *contest) takeProfile(workload string, seconds int) chan string {
	file := filepath.Join(c.dir, workload+".pprof")
	if c.out != "" {
		file = filepath.Join(c.out, workload+".pprof")
	}
	address := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", c.addr("profile"), seconds)
	taken := make(chan string, 1)
	go func() {
		defer close(taken)
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds+10)*time.Second)
		defer cancel()
		for ctx.Err() == nil {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
			if err != nil {
				return
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				time.Sleep(time.Millisecond) // it does not listen yet
				continue
			}
			content, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err == nil && response.StatusCode == http.StatusOK && os.WriteFile(file, content, 0o644) == nil {
				taken <- file
			}
			return
		}
	}()
	return taken
}

// keepProfile sums a profile up.
func (c *contest) keepProfile(workload, file string) {
	if file == "" {
		c.note("%s: the profile did not come", workload)
		return
	}
	top, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=12", built(c.t), file).Output()
	if err != nil {
		c.note("%s: go tool pprof: %v", workload, err)
		return
	}
	traces, err := exec.Command("go", "tool", "pprof", "-traces", built(c.t), file).Output()
	if err != nil {
		c.note("%s: go tool pprof: %v", workload, err)
		return
	}
	p := profile{workload: workload, top: lastTable(string(top))}
	sums := map[string]time.Duration{}
	for _, s := range readTraces(string(traces)) {
		sums[kindOf(s.frames)] += s.time
		p.total += s.time
	}
	for kind, sum := range sums {
		p.kinds = append(p.kinds, share{kind, sum})
	}
	slices.SortFunc(p.kinds, func(a, b share) int { return cmp.Or(cmp.Compare(b.time, a.time), cmp.Compare(a.kind, b.kind)) })
	if p.total > 0 {
		c.profiles = append(c.profiles, p)
	}
}

// lastTable is pprof's output without its head, indented.
func lastTable(text string) string {
	var out strings.Builder
	shown := false
	for line := range strings.Lines(text) {
		if shown = shown || strings.Contains(line, "flat%"); shown {
			out.WriteString("    " + strings.TrimRight(line, " \n") + "\n")
		}
	}
	return out.String()
}

// sample is one stack of a profile, the innermost frame first.
type sample struct {
	time   time.Duration
	frames []string
}

// readTraces reads what `go tool pprof -traces` prints.
func readTraces(text string) []sample {
	var all []sample
	var now *sample
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "-----------+") {
			now = nil
			continue
		}
		fields := strings.Fields(line)
		if now == nil && len(fields) >= 2 {
			if took, err := time.ParseDuration(fields[0]); err == nil {
				all = append(all, sample{time: took})
				now, fields = &all[len(all)-1], fields[1:]
			}
		}
		if now != nil && len(fields) > 0 {
			now.frames = append(now.frames, fields[0])
		}
	}
	return all
}

// kindOf finds the kind of the innermost frame that has one.
func kindOf(frames []string) string {
	// Collection, and reads and writes, count as a whole, whatever they call.
	for _, outer := range kinds()[:8] {
		if slices.ContainsFunc(frames, func(f string) bool { return strings.HasPrefix(f, outer.frame) }) {
			return outer.kind
		}
	}
	for _, frame := range frames {
		for _, k := range kinds() {
			if strings.HasPrefix(frame, k.frame) {
				return k.kind
			}
		}
	}
	return "the rest"
}
