package storage_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

func faulty(t *testing.T, change func(*storage.Options, *storage.LogConfig)) (*faultFS, *storage.Store, *storage.Log) {
	t.Helper()
	f := newFaultFS()
	s, l := newLog(t, func(o *storage.Options, c *storage.LogConfig) {
		o.FS = f
		if change != nil {
			change(o, c)
		}
	})
	return f, s, l
}

// TestFullDisk: that append fails, its torn bytes go, and the log goes on when
// there is room.
func TestFullDisk(t *testing.T) {
	for room := range int64(80) {
		f, s, l := faulty(t, nil)
		mustAppend(t, l, plain(t, now, "a"))
		f.room.Store(room % int64(len(plain(t, now, "lost"))))
		_, err := l.Append(numbered(t, 3, 0, 0, 1), 0, storage.AppendOptions{FromClient: true})
		wantCode(t, err, kerr.KafkaStorageError)
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
			t.Errorf("error %v", err)
		}
		f.room.Store(-1)
		if info, err := os.Stat(filepath.Join(l.Dir(), "00000000000000000000.log")); err != nil || info.Size() != l.Size() {
			t.Errorf("torn bytes are left: %d, want %d", info.Size(), l.Size())
		}
		if r := mustAppend(t, l, numbered(t, 3, 0, 0, 1)); r.BaseOffset != 1 || r.Duplicate {
			t.Errorf("after room was made: %+v", r)
		}
		mustSync(t, l)
		if got := readAll(t, l, 0); !cmp.Equal(got, []string{"a", "p3-e0-0"}) {
			t.Errorf("read %q", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullDiskAtRoll: no room for the next segment's file.
func TestFullDiskAtRoll(t *testing.T) {
	f, _, l := faulty(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentBytes = 100 })
	mustAppend(t, l, plain(t, now, "a"))
	set(&f.createErr, syscall.ENOSPC)
	_, err := l.Append(plain(t, now, "lost"), 0, storage.AppendOptions{FromClient: true})
	wantCode(t, err, kerr.KafkaStorageError)
	set(&f.createErr, nil)
	if r := mustAppend(t, l, plain(t, now, "b")); r.BaseOffset != 1 {
		t.Errorf("%+v", r)
	}
	mustSync(t, l)
	if got := readAll(t, l, 0); !cmp.Equal(got, []string{"a", "b"}) {
		t.Errorf("read %q", got)
	}
}

// TestFailedSync: nothing after it is acknowledged, not even when the next sync
// would succeed.
func TestFailedSync(t *testing.T) {
	for _, fsync := range []storage.Fsync{storage.FsyncBatch, storage.FsyncInterval} {
		f, s, l := faulty(t, func(o *storage.Options, _ *storage.LogConfig) { o.Fsync = fsync; o.FsyncInterval = time.Millisecond })
		run(t, s)
		mustAppend(t, l, plain(t, now, "a"))
		mustSync(t, l)
		set(&f.syncErr, syscall.EIO)
		r, err := l.Append(plain(t, now, "b"), 0, storage.AppendOptions{FromClient: true})
		if err != nil {
			t.Fatal(err)
		}
		if fsync == storage.FsyncBatch {
			err = l.WaitDurable(t.Context(), r.LastOffset)
			wantCode(t, err, kerr.KafkaStorageError)
			if l.HighWatermark() != 1 {
				t.Errorf("high watermark %d", l.HighWatermark())
			}
		} else {
			w := storage.NewWaiter()
			l.Watch(w)
			for l.Err() == nil {
				<-w.C
			}
		}
		set(&f.syncErr, nil)
		_, err = l.Append(plain(t, now, "c"), 0, storage.AppendOptions{FromClient: true})
		wantCode(t, err, kerr.KafkaStorageError)
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("the cause is hidden: %v", err)
		}
		if l.Err() == nil {
			t.Error("no error is shown")
		}
		if vs := readAll(t, l, 0); vs[0] != "a" {
			t.Errorf("read %q", vs)
		}
		if err := l.DeleteBefore(1); codeOf(err) != kerr.KafkaStorageError.Code {
			t.Errorf("delete on a broken log: %v", err)
		}
	}
}

// TestFailedSyncAtClose is told by Close, and leaves no mark of an orderly end.
func TestFailedSyncAtClose(t *testing.T) {
	f, s, l := faulty(t, func(o *storage.Options, _ *storage.LogConfig) { o.Fsync = storage.FsyncNever })
	mustAppend(t, l, plain(t, now, "a"))
	set(&f.syncErr, syscall.EIO)
	if err := s.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("close: %v", err)
	}
	if _, err := os.Stat(filepath.Join(s.Dir(), ".kafka_cleanshutdown")); err == nil {
		t.Error("marked as closed in order")
	}
}

// TestFailedWrite: an error other than a full disk ends the log, as does a torn
// write that cannot be cut off.
func TestFailedWrite(t *testing.T) {
	f, _, l := faulty(t, nil)
	mustAppend(t, l, plain(t, now, "a"))
	mustSync(t, l)
	set(&f.writeErr, syscall.EIO)
	_, err := l.Append(plain(t, now, "b"), 0, storage.AppendOptions{})
	wantCode(t, err, kerr.KafkaStorageError)
	set(&f.writeErr, nil)
	_, err = l.Append(plain(t, now, "b"), 0, storage.AppendOptions{})
	wantCode(t, err, kerr.KafkaStorageError)

	f, _, l = faulty(t, nil)
	mustAppend(t, l, plain(t, now, "a"))
	set(&f.writeErr, syscall.ENOSPC)
	set(&f.truncErr, syscall.EIO)
	_, err = l.Append(plain(t, now, "b"), 0, storage.AppendOptions{})
	wantCode(t, err, kerr.KafkaStorageError)
	set(&f.writeErr, nil)
	_, err = l.Append(plain(t, now, "b"), 0, storage.AppendOptions{})
	wantCode(t, err, kerr.KafkaStorageError)
}

// TestNothingVisibleBeforeSync holds the sync back and looks.
func TestNothingVisibleBeforeSync(t *testing.T) {
	f, s, l := faulty(t, nil)
	run(t, s)
	release := make(chan struct{})
	held := make(chan struct{}, 10)
	hold := func() { held <- struct{}{}; <-release }
	f.beforeFn.Store(&hold)
	r := mustAppend(t, l, plain(t, now, "a"))
	<-held
	if l.HighWatermark() != 0 || l.End() != 1 {
		t.Errorf("high watermark %d, end %d", l.HighWatermark(), l.End())
	}
	if slice, err := l.Read(0, 1000, true, l.HighWatermark()); err != nil || slice.Len != 0 {
		t.Errorf("read %d bytes, %v", slice.Len, err)
	}
	if _, _, found, err := l.OffsetForTime(0); err != nil || found {
		t.Errorf("found by time: %v, %v", found, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := l.WaitDurable(ctx, r.LastOffset); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v", err)
	}
	w := storage.NewWaiter()
	l.Watch(w)
	defer l.Unwatch(w)
	f.beforeFn.Store(nil)
	close(release)
	<-w.C
	if l.HighWatermark() != 1 {
		t.Errorf("high watermark %d", l.HighWatermark())
	}
}

// TestSyncsAreShared lets many producers wait on the same rounds.
func TestSyncsAreShared(t *testing.T) {
	f, s, l := faulty(t, nil)
	run(t, s)
	const producers, each = 16, 20
	slow := func() { time.Sleep(time.Millisecond) } // the disk's time, in which the others append
	f.beforeFn.Store(&slow)
	var wait sync.WaitGroup
	var acknowledged atomic.Int64
	for p := range producers {
		wait.Go(func() {
			for i := range each {
				b := numbered(t, int64(p), 0, int32(i), 1)
				r, err := l.Append(b, 0, storage.AppendOptions{FromClient: true})
				if err == nil {
					err = l.WaitDurable(t.Context(), r.LastOffset)
				}
				if err != nil {
					t.Error(err)
					return
				}
				f.mu.Lock()
				covered := f.synced[filepath.Join(l.Dir(), "00000000000000000000.log")]
				f.mu.Unlock()
				if covered < (r.LastOffset+1)*wire.BatchHeaderSize {
					t.Errorf("offset %d is acknowledged with %d bytes synced", r.LastOffset, covered)
				}
				acknowledged.Add(1)
			}
		})
	}
	wait.Wait()
	if n := f.syncs.Load(); acknowledged.Load() != producers*each || n > producers*each/2 {
		t.Errorf("%d syncs for %d acknowledged batches", n, acknowledged.Load())
	}
}

func TestDirectoryRefusals(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	o := storage.Options{Dir: dir, NodeID: 1, Cluster: "east"}
	s := mustOpen(t, o)
	id := s.ClusterID()
	wantDirError := func(o storage.Options, words ...string) {
		t.Helper()
		_, err := storage.Open(o)
		var refusal *storage.DirError
		if !errors.As(err, &refusal) || refusal.Remedy == "" {
			t.Errorf("got %v, want a refusal", err)
			return
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q lacks %q", err, word)
			}
		}
	}
	wantDirError(o, "in use", "stop that process")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantDirError(storage.Options{Dir: dir, NodeID: 2}, "node 1, not 2")
	wantDirError(storage.Options{Dir: dir, NodeID: 1, Cluster: "west"}, `"east", not "west"`)
	wantDirError(storage.Options{Dir: dir, NodeID: 1, ClusterID: "abc"}, id, "abc")
	s = mustOpen(t, storage.Options{Dir: dir, NodeID: 1, ClusterID: id, Cluster: "east"})
	if s.ClusterID() != id {
		t.Errorf("cluster id %s became %s", id, s.ClusterID())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustWriteFile(t, []byte("x"), filepath.Join(dir, "meta.properties"))
	wantDirError(o, "meta.properties is damaged")

	file := filepath.Join(t.TempDir(), "file")
	mustWriteFile(t, nil, file)
	wantDirError(storage.Options{Dir: file, NodeID: 1}, "stands in its place")
	wantDirError(storage.Options{NodeID: 1}, "no path")

	full := newFaultFS()
	set(&full.createErr, syscall.ENOSPC)
	wantDirError(storage.Options{Dir: filepath.Join(t.TempDir(), "d"), FS: full}, "make room")
	if os.Getuid() == 0 {
		t.Log("running as root: the missing right is not tried with chmod")
		set(&full.createErr, syscall.EACCES)
		wantDirError(storage.Options{Dir: filepath.Join(t.TempDir(), "d"), FS: full}, "the right to read and write")
		return
	}
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	wantDirError(storage.Options{Dir: closed}, fmt.Sprint(os.Getuid()))
}
