package main

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// boundMemory tells the collector how much memory there is to use, unless the
// user has (GOMEMLIMIT): three quarters of what the machine or the container
// has, so that a burst makes it collect harder before the kernel kills us.
func boundMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit := memoryLimit(machineMemory(), containerMemory("/sys/fs/cgroup/memory.max")); limit > 0 {
		debug.SetMemoryLimit(limit)
	}
}

// memoryLimit decides from the memory of machine and container, 0 for unknown; 0 is no limit.
func memoryLimit(machine, container int64) int64 {
	have := machine
	if container > 0 && (have == 0 || container < have) {
		have = container
	}
	return have / 4 * 3
}

// containerMemory reads a cgroup's limit (version 2); 0 where there is none.
func containerMemory(path string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n < 0 {
		return 0 // "max"
	}
	return n
}
