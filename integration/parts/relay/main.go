// Command relay is what a mirror of files would cost if there were nothing to
// know about them: the lower bound that `make bench-mm2` measures kmirror by.
//
// Three processes, as source, mirror and target are three:
//
//	relay sink LISTEN FILE      takes one connection and writes what comes to the file
//	relay middle LISTEN TARGET  takes one connection and writes what it reads, 1 MiB at most, to the target
//	relay source TARGET FILE... sends the files with sendfile(2)
//
// Each prints one line of JSON when it is done: bytes, and nanoseconds of wall,
// user and system time from the first byte to the last. Sockets are blocking
// and each process has one thread at work, so that nothing is measured but
// system calls and their copies.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	runtime.LockOSThread()
	if err := run(context.Background(), os.Args[1:]); err != nil { //nolint:forbidigo // a program of its own makes its first context
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1) //nolint:forbidigo // and ends with a code
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 3 {
		return errors.New("say what to be: sink LISTEN FILE, middle LISTEN TARGET, or source TARGET and files")
	}
	switch args[0] {
	case "sink":
		in, err := accept(ctx, args[1])
		if err != nil {
			return err
		}
		out, err := os.Create(args[2])
		if err != nil {
			return err
		}
		return report(func(begin func()) (int64, error) { return pump(int(in.Fd()), int(out.Fd()), begin) })
	case "middle":
		in, err := accept(ctx, args[1])
		if err != nil {
			return err
		}
		out, err := dial(ctx, args[2])
		if err != nil {
			return err
		}
		return report(func(begin func()) (int64, error) { return pump(int(in.Fd()), int(out.Fd()), begin) })
	case "source":
		out, err := dial(ctx, args[1])
		if err != nil {
			return err
		}
		return report(func(begin func()) (int64, error) { begin(); return send(int(out.Fd()), args[2:]) })
	default:
		return fmt.Errorf("no part %q", args[0])
	}
}

// accept takes one connection; its descriptor blocks.
func accept(ctx context.Context, address string) (*os.File, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn, err := listener.Accept()
	if err = errors.Join(err, listener.Close()); err != nil {
		return nil, err
	}
	return blocking(conn)
}

// dial connects, and tries again while nobody listens yet.
func dial(ctx context.Context, address string) (*os.File, error) {
	var dialer net.Dialer
	for try := 0; ; try++ {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return blocking(conn)
		}
		if try == 200 {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// blocking is a descriptor of the connection that the runtime does not watch.
func blocking(conn net.Conn) (*os.File, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, fmt.Errorf("%T is no TCP connection", conn)
	}
	file, err := tcp.File()
	if err = errors.Join(err, tcp.Close()); err != nil {
		return nil, err
	}
	return file, unix.SetNonblock(int(file.Fd()), false)
}

// pump reads 1 MiB at most and writes it, until the end.
func pump(in, out int, begin func()) (int64, error) {
	buffer := make([]byte, 1<<20)
	var sum int64
	for {
		n, err := unix.Read(in, buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 || err != nil {
			return sum, err
		}
		if sum == 0 {
			begin()
		}
		sum += int64(n)
		for piece := buffer[:n]; len(piece) > 0; {
			written, err := unix.Write(out, piece)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return sum, err
			}
			piece = piece[max(0, written):]
		}
	}
}

// send sends files whole.
func send(out int, names []string) (int64, error) {
	var sum int64
	for _, name := range names {
		file, err := os.Open(name)
		if err != nil {
			return sum, err
		}
		info, err := file.Stat()
		for left := info.Size(); err == nil && left > 0; {
			var n int
			n, err = unix.Sendfile(out, int(file.Fd()), nil, int(min(left, 1<<20)))
			if errors.Is(err, unix.EINTR) {
				err = nil
				continue
			}
			if err == nil && n == 0 {
				err = io.ErrUnexpectedEOF
			}
			left -= int64(n)
			sum += int64(n)
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return sum, fmt.Errorf("%s: %w", name, err)
		}
	}
	return sum, nil
}

// report does the work and prints what it took since work called begin.
func report(work func(begin func()) (int64, error)) error {
	var started time.Time
	var before unix.Rusage
	sum, err := work(func() {
		started = time.Now()
		_ = unix.Getrusage(unix.RUSAGE_SELF, &before) // it cannot fail
	})
	if err != nil {
		return err
	}
	var after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	return json.NewEncoder(os.Stdout).Encode(map[string]int64{
		"bytes": sum, "wall": int64(time.Since(started)),
		"user": after.Utime.Nano() - before.Utime.Nano(), "system": after.Stime.Nano() - before.Stime.Nano(),
	})
}
