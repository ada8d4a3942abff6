package wire

import (
	"net"
	"syscall"
)

// lowWaterMark makes the system wake a reader only when so many bytes have
// arrived, or the end of the stream has; the receive buffer grows to hold them.
// Where that cannot be done, as below TLS, nothing happens.
type lowWaterMark struct {
	raw  syscall.RawConn // nil: cannot be done
	low  int             // what is set; 0: what the system began with, which is 1
	call func(fd uintptr)
}

func newLowWaterMark(nc net.Conn) *lowWaterMark {
	m := &lowWaterMark{}
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return m
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return m // closed: the next read says so
	}
	m.raw = raw
	m.call = func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, m.low) }
	return m
}

// set asks for n bytes, 1 at least.
func (m *lowWaterMark) set(n int) {
	if m.raw == nil || n == max(1, m.low) {
		return
	}
	m.low = n
	_ = m.raw.Control(m.call)
}

// high says that a reader may be asleep although something has arrived.
func (m *lowWaterMark) high() bool { return m.low > 1 }
