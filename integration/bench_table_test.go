package integration_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"kmirror/internal/bench"
)

// row is what one contestant did with one workload. What was not measured is 0.
type row struct {
	workload, who string
	failure       string
	rate          float64 // MB/s on the wire
	records       float64 // per second
	cpu, user     float64 // seconds per GB on the wire, of the mirror
	perRecord     float64 // µs of CPU, of the mirror
	cores         float64 // of the mirror
	source        float64 // cores of the source's broker
	target        float64 // cores of the target's broker
	busy          float64 // cores of the whole machine
	others        float64 // cores that nobody here used
	start         float64 // seconds until the first record was there
	startCPU      float64 // seconds until then
	memory        int64   // bytes at most
	latency       bench.Latency
	back          float64 // seconds from kill -9 to the next record
	copied        string
	whole         time.Duration
	unfelt        bool // it is no mirror: ratios only
}

// short is a row for who waits.
func (r row) short() string {
	parts := []string{}
	add := func(format string, value float64) {
		if value > 0 {
			parts = append(parts, fmt.Sprintf(format, value))
		}
	}
	add("%.0f MB/s", r.rate)
	add("%.2f CPU-s/GB", r.cpu)
	add("first record after %.2f s", r.start)
	if r.latency.Records > 0 {
		parts = append(parts, fmt.Sprintf("p50 %s p99 %s p99.9 %s ms", millis(r.latency.P50), millis(r.latency.P99), millis(r.latency.P999)))
	}
	add("%.2f cores", r.cores)
	add("back after %.1f s", r.back)
	add("others used %.2f cores", r.others)
	return strings.Join(parts, ", ")
}

// median is the round in the middle, by CPU per byte.
func median(rounds []row) row {
	sorted := slices.SortedFunc(slices.Values(rounds), func(a, b row) int { return cmp.Compare(a.cpu, b.cpu) })
	return sorted[len(sorted)/2]
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1e3) }

// limit says what held a contestant back, as far as it shows.
func (r row) limit() string {
	switch {
	case r.busy == 0:
		return ""
	case r.busy > .9*processors() && r.source+r.target > .6*processors():
		return "brokers saturated"
	case r.busy > .9*processors():
		return "machine saturated"
	default:
		return "the mirror"
	}
}

// print shows the table, and keeps it where the environment says.
func (c *contest) print() {
	var text strings.Builder
	text.WriteString(c.table())
	for _, note := range c.notes {
		text.WriteString("\n" + note + "\n")
	}
	for _, p := range c.profiles {
		text.WriteString("\n" + p.String())
	}
	fmt.Println("\n" + text.String())
	if c.out != "" {
		if err := os.WriteFile(filepath.Join(c.out, "bench-mm2.md"), []byte(text.String()), 0o644); err != nil {
			c.t.Error(err)
		}
	}
}

// columns are the table's, in order.
func columns() []string {
	return []string{
		"workload", "who", "MB/s", "x speed", "krec/s", "CPU-s/GB (user)", "x CPU", "µs/rec", "cores", "p50 / p99 / p99.9 ms",
		"MiB", "start s (CPU-s)", "back s", "brokers' cores", "machine (others)", "held back by", "copy",
	}
}

// table is Markdown that reads as it stands. x is how often kmirror is as fast,
// and how often it has the CPU time of, what stands in the row.
func (c *contest) table() string {
	rows := [][]string{columns()}
	for _, r := range c.rows {
		rows = append(rows, c.cells(r))
	}
	width := make([]int, len(rows[0]))
	for _, cells := range rows {
		for i, cell := range cells {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%d processors, %s; `x speed`: how many times as fast kmirror is; `x CPU`: how many times the CPU time of kmirror it takes (per byte, or in cores); `brokers' cores`: source + target; `machine`: cores that were busy, of them by processes that have nothing to do with this.\n\n",
		runtime.NumCPU(), time.Now().Format(time.DateOnly))
	for i, cells := range rows {
		out.WriteString("|")
		for j, cell := range cells {
			pad := strings.Repeat(" ", width[j]-utf8.RuneCountInString(cell))
			if j < 2 {
				out.WriteString(" " + cell + pad + " |")
			} else {
				out.WriteString(" " + pad + cell + " |")
			}
		}
		out.WriteString("\n")
		if i == 0 {
			for j := range cells {
				out.WriteString("|" + strings.Repeat("-", width[j]+1))
				if j < 2 {
					out.WriteString("-")
				} else {
					out.WriteString(":")
				}
			}
			out.WriteString("|\n")
		}
	}
	return out.String()
}

func (c *contest) cells(r row) []string {
	if r.failure != "" {
		cells := make([]string, len(columns()))
		first, _, _ := strings.Cut(r.failure, "\n")
		cells[0], cells[1], cells[len(cells)-1] = r.workload, r.who, "FAILED: "+first[:min(len(first), 60)]
		return cells
	}
	own, _ := c.find(r.workload, ours)
	figure := func(format string, value float64) string {
		if value == 0 {
			return ""
		}
		return fmt.Sprintf(format, value)
	}
	ratio := func(mine, its float64) string {
		if mine <= 0 || its <= 0 || r.who == ours {
			return ""
		}
		return fmt.Sprintf("%.2f", mine/its)
	}
	cheaper := ratio(r.cpu, own.cpu) // the row's by ours: the other way round than speed
	if r.cpu == 0 {
		cheaper = ratio(r.cores, own.cores) // a steady load is the same for all
	}
	both := func(format string, first, second float64) string {
		if first == 0 {
			return ""
		}
		return fmt.Sprintf(format, first, second)
	}
	latency := ""
	if r.latency.Records > 0 {
		latency = millis(r.latency.P50) + " / " + millis(r.latency.P99) + " / " + millis(r.latency.P999)
	}
	return []string{
		r.workload, r.who, figure("%.0f", r.rate), ratio(own.rate, r.rate), figure("%.1f", r.records/1e3), both("%.2f (%.2f)", r.cpu, r.user), cheaper,
		figure("%.1f", r.perRecord), figure("%.2f", r.cores), latency, figure("%.0f", float64(r.memory)/(1<<20)), both("%.2f (%.2f)", r.start, r.startCPU),
		figure("%.2f", r.back), both("%.2f + %.2f", r.source, r.target), both("%.2f (%.2f)", r.busy, r.others), r.limit(), r.copied,
	}
}

// find finds what somebody did with a workload.
func (c *contest) find(workload, who string) (row, bool) {
	i := slices.IndexFunc(c.rows, func(r row) bool { return r.workload == workload && r.who == who && r.failure == "" })
	if i < 0 {
		return row{}, false
	}
	return c.rows[i], true
}
