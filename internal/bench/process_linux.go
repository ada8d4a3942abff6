package bench

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of /proc/PID/stat: the kernel's USER_HZ is 100 everywhere.
const tick = 10 * time.Millisecond

// UsageOf is what the process with this id has used.
func UsageOf(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, err
	}
	// The name in the second field may hold blanks and brackets; behind it nothing does.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return Usage{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	if err1 != nil || err2 != nil {
		return Usage{}, fmt.Errorf("/proc/%d/stat: %q, %q", pid, fields[11], fields[12])
	}
	u := Usage{User: time.Duration(user) * tick, System: time.Duration(system) * tick}
	u.total = u.User + u.System
	// The clock of another process, as clock_getcpuclockid(3) makes its number.
	var spec unix.Timespec
	if err := unix.ClockGettime(int32(^uint32(pid)<<3|2), &spec); err == nil {
		u.total = time.Duration(spec.Nano())
	}
	return u, nil
}

// MemoryOf is what the process with this id holds in memory, and the most that
// it ever held.
func MemoryOf(pid int) (Memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	var m Memory
	for line := range bytes.Lines(status) {
		var kib int64
		if n, _ := fmt.Sscanf(string(line), "VmRSS: %d kB", &kib); n == 1 {
			m.Resident = kib << 10
		}
		if n, _ := fmt.Sscanf(string(line), "VmHWM: %d kB", &kib); n == 1 {
			m.Peak = kib << 10
		}
	}
	return m, nil
}

// MachineBusy is for how long the machine's processors were busy since it
// began, all of them added up.
func MachineBusy() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	var busy time.Duration
	for i, field := range bytes.Fields(line) {
		const idle, waiting, guest = 4, 5, 9 // guests are counted as user time, too
		if i == 0 || i == idle || i == waiting || i >= guest {
			continue
		}
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %q", field)
		}
		busy += time.Duration(n) * tick
	}
	return busy, nil
}

// sleepUntil returns at the time, or some 50 µs later. The runtime's own timers
// may be a millisecond late when nothing else is to do.
func sleepUntil(at time.Time) {
	left := time.Until(at)
	if left <= 0 {
		return
	}
	spec := unix.NsecToTimespec(left.Nanoseconds())
	_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &spec, nil) // woken early: what is due is due a little earlier
}

// steady keeps the goroutine on a thread of its own, for sleepUntil.
func steady() (release func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}
