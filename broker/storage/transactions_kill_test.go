package storage_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

var errKilled = errors.New("killed")

// killFS is the real file system until its user is killed: from then on nothing
// changes. It remembers what of each file was forced to disk.
type killFS struct {
	storage.OSFS

	mu     sync.Mutex
	left   int              // changes until the end
	synced map[string]int64 // file to the size that a power failure leaves
}

// step counts a change that is about to happen.
func (k *killFS) step() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left <= 0 {
		return errKilled
	}
	k.left--
	return nil
}

func (k *killFS) OpenFile(name string, flag int, perm fs.FileMode) (storage.File, error) {
	if flag&os.O_CREATE != 0 {
		if err := k.step(); err != nil {
			return nil, err
		}
	}
	if flag&os.O_TRUNC != 0 {
		k.mu.Lock()
		delete(k.synced, name)
		k.mu.Unlock()
	}
	f, err := k.OSFS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &killFile{File: f, fs: k, name: name}, nil
}

func (k *killFS) Rename(from, to string) error {
	if err := k.step(); err != nil {
		return err
	}
	k.mu.Lock()
	if size, ok := k.synced[from]; ok {
		k.synced[to] = size
	} else {
		delete(k.synced, to)
	}
	delete(k.synced, from)
	k.mu.Unlock()
	return k.OSFS.Rename(from, to)
}

func (k *killFS) Remove(name string) error {
	if err := k.step(); err != nil {
		return err
	}
	return k.OSFS.Remove(name)
}

func (k *killFS) SyncDir(string) error { return k.step() }

type killFile struct {
	storage.File
	fs   *killFS
	name string
}

func (f *killFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.step(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *killFile) Truncate(size int64) error {
	if err := f.fs.step(); err != nil {
		return err
	}
	f.fs.mu.Lock()
	f.fs.synced[f.name] = min(f.fs.synced[f.name], size)
	f.fs.mu.Unlock()
	return f.File.Truncate(size)
}

func (f *killFile) Datasync() error {
	if err := f.fs.step(); err != nil {
		return err
	}
	info, err := f.OS().Stat()
	if err != nil {
		return err
	}
	f.fs.mu.Lock()
	f.fs.synced[f.name] = info.Size()
	f.fs.mu.Unlock()
	return nil
}

// loseUnsynced cuts the files below dir, a copy of what stood at from, to what a
// power failure leaves at worst.
func (k *killFS) loseUnsynced(t *testing.T, from, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Base(path) == ".lock" {
			return err
		}
		return os.Truncate(path, k.synced[from+strings.TrimPrefix(path, dir)])
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tryOpen is open where the process may be killed meanwhile.
func (m *txnMachine) tryOpen(dir string) (err error) {
	o := m.options(dir)
	if m.store, err = storage.Open(o); err != nil {
		return err
	}
	m.log = m.store.Log("orders", 0)
	m.log.SetConfig(m.config)
	return nil
}

// play writes a history of transactions until it ends or its process is killed.
func (m *txnMachine) play(t *testing.T, r *rand.Rand) error {
	for range 45 {
		m.clock += int64(r.Intn(500))
		id := int64(r.Intn(3))
		p := refer(m.entries).producers[id]
		switch action := r.Intn(13); {
		case action < 5:
			e := txnEntry{producer: id, transactional: true, time: m.clock}
			if p != nil {
				e.epoch, e.sequence = p.epoch, p.lastSequence()+1
			}
			e.values = []string{fmt.Sprintf("v%d", len(m.entries))}
			guard, _, err := m.log.BeginVerification(id, e.epoch, e.sequence, false)
			if err != nil {
				t.Fatalf("verification: %v", err)
			}
			b := batchOf(t, wire.BatchOptions{
				Transactional: true, ProducerID: id, ProducerEpoch: e.epoch, BaseSequence: e.sequence, LeaderEpoch: -1,
			}, values(e.time, e.values...)...)
			res, err := m.log.Append(b, 0, storage.AppendOptions{FromClient: true, Verified: guard})
			if err != nil {
				return err
			}
			e.base = res.BaseOffset
			m.entries = append(m.entries, e)
		case action < 8:
			k := storage.Marker{ProducerID: id, Epoch: 1, Commit: r.Intn(3) == 0}
			if p != nil {
				k.Epoch = p.epoch + 1
			}
			offset, err := m.log.AppendMarker(k, 0)
			if err != nil {
				return err
			}
			m.entries = append(m.entries, txnEntry{
				base: offset, time: m.clock, producer: id, epoch: k.Epoch, transactional: true, marker: true, commit: k.Commit,
			})
		case action < 10:
			if m.log.End() == m.log.Start() {
				continue
			}
			end := m.log.End()
			if err := m.log.WaitDurable(t.Context(), end-1); err != nil {
				return err
			}
			m.acked = end
		case action < 11:
			if err := m.store.Close(); err != nil {
				return err
			}
			m.acked = m.log.End()
			if err := m.tryOpen(m.store.Dir()); err != nil {
				return err
			}
			m.lose(t)
		default: // which also saves how far the log is safe
			high, end := m.log.HighWatermark(), m.log.End()
			if high == end {
				continue
			}
			if err := m.log.Truncate(high + r.Int63n(end-high)); err != nil {
				return err
			}
			m.lose(t)
		}
	}
	return m.store.Close()
}

// TestKilledAnywhere kills a process before each change that it makes to a file,
// with and without what it had not forced to disk, and opens what is left: all
// that was acknowledged is there, what is known of producers and transactions is
// what the batches say, and no aborted record is shown.
func TestKilledAnywhere(t *testing.T) {
	for seed := range int64(4) {
		for _, power := range []bool{true, false} {
			t.Run(fmt.Sprintf("seed %d, power %v", seed, power), func(t *testing.T) {
				root := quickDir(t)
				for kill := 1; ; kill++ {
					m := &txnMachine{root: root, clock: now, config: storage.DefaultLogConfig(), whole: true}
					m.config.SegmentBytes, m.config.IndexIntervalBytes = 350, 100
					k := &killFS{left: 1 << 30, synced: map[string]int64{}}
					m.fs = k
					first, second := filepath.Join(root, fmt.Sprint(kill)), filepath.Join(root, fmt.Sprint(kill, "-again"))
					m.open(t, first)
					k.mu.Lock()
					k.left = kill
					k.mu.Unlock()
					err := m.play(t, rand.New(rand.NewSource(seed))) //nolint:gosec // a history, repeatable
					if err := os.CopyFS(second, os.DirFS(first)); err != nil {
						t.Fatal(err)
					}
					if !power {
						k.loseUnsynced(t, first, second)
					}
					if m.store != nil {
						_ = m.store.Close()
					}
					m.fs = storage.OSFS{}
					m.open(t, second)
					if m.log.End() < m.acked {
						t.Fatalf("killed at change %d: acknowledged to %d, but the log ends at %d", kill, m.acked, m.log.End())
					}
					m.lose(t)
					m.compare(t, 1<<20)
					_ = m.store.Close()
					for _, dir := range []string{first, second} {
						if err := os.RemoveAll(dir); err != nil {
							t.Fatal(err)
						}
					}
					if t.Failed() {
						t.Fatalf("killed at change %d", kill)
					}
					if err == nil {
						t.Logf("%d changes", kill)
						return // the history came to its end
					}
				}
			})
		}
	}
}

// TestKilledWhileTruncating: what is left of a log that was all on disk ends
// somewhere from where it was to be cut on, without a hole.
func TestKilledWhileTruncating(t *testing.T) {
	root := quickDir(t)
	for kill := 0; ; kill++ {
		k := &killFS{left: 1 << 30, synced: map[string]int64{}}
		cfg := storage.DefaultLogConfig()
		cfg.SegmentBytes = 200
		dir := filepath.Join(root, fmt.Sprint(kill))
		s := mustOpen(t, storage.Options{Dir: dir, NodeID: 1, FS: k, Now: clockAt(now)})
		l := mustCreate(t, s, cfg)
		var want []string
		for i := range 12 {
			want = append(want, fmt.Sprint("v", i))
			mustAppend(t, l, plain(t, now, want[i]))
		}
		mustSync(t, l)
		if err := l.Truncate(11); err != nil { // saves how far the log is safe
			t.Fatal(err)
		}
		k.mu.Lock()
		k.left = kill
		k.mu.Unlock()
		err := l.Truncate(3)
		left := mustOpen(t, storage.Options{Dir: copyDir(t, dir), NodeID: 1, Now: clockAt(now)}).Log("orders", 0)
		got, readErr := tryReadAll(left, 0)
		if readErr != nil || left.End() < 3 || left.End() > 11 || !slices.Equal(got, want[:left.End()]) {
			t.Errorf("killed at change %d: read %q up to %d, %v", kill, got, left.End(), readErr)
		}
		if err == nil {
			return
		}
	}
}
