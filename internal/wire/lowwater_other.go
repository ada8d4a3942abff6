//go:build !linux

package wire

import "net"

// lowWaterMark does nothing: this system wakes a reader for every byte.
type lowWaterMark struct{}

func newLowWaterMark(net.Conn) *lowWaterMark { return &lowWaterMark{} }

func (*lowWaterMark) set(int) {}

func (*lowWaterMark) high() bool { return false }
