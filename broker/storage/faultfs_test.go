package storage_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"kmirror/broker/storage"
)

// faultFS is the real file system with switches. It counts syncs and remembers
// how much of each file they covered.
type faultFS struct {
	storage.OSFS
	lazy bool // syncs do nothing, which makes tests quick

	room      atomic.Int64 // bytes that may still be written to log files, -1 for no limit
	writeErr  atomic.Pointer[error]
	syncErr   atomic.Pointer[error]
	truncErr  atomic.Pointer[error]
	createErr atomic.Pointer[error]
	syncs     atomic.Int64
	beforeFn  atomic.Pointer[func()] // called before each sync of a log file

	mu     sync.Mutex
	synced map[string]int64 // log file to the size that was synced
}

func newFaultFS() *faultFS {
	f := &faultFS{synced: map[string]int64{}}
	f.room.Store(-1)
	return f
}

func set(p *atomic.Pointer[error], err error) {
	if err == nil {
		p.Store(nil)
		return
	}
	p.Store(&err)
}

func (f *faultFS) OpenFile(name string, flag int, perm fs.FileMode) (storage.File, error) {
	if e := f.createErr.Load(); e != nil && flag&os.O_CREATE != 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: *e}
	}
	file, err := f.OSFS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, fs: f, name: name, log: filepath.Ext(name) == ".log"}, nil
}

func (f *faultFS) SyncDir(name string) error {
	if f.lazy {
		return nil
	}
	return f.OSFS.SyncDir(name)
}

type faultFile struct {
	storage.File
	fs   *faultFS
	name string
	log  bool
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	if !f.log {
		return f.File.WriteAt(p, off)
	}
	if e := f.fs.writeErr.Load(); e != nil {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, *e
	}
	if room := f.fs.room.Load(); room >= 0 {
		if int64(len(p)) > room {
			n, _ := f.File.WriteAt(p[:room], off)
			f.fs.room.Store(room - int64(n))
			return n, syscall.ENOSPC
		}
		f.fs.room.Add(-int64(len(p)))
	}
	return f.File.WriteAt(p, off)
}

func (f *faultFile) Truncate(size int64) error {
	if e := f.fs.truncErr.Load(); e != nil {
		return *e
	}
	return f.File.Truncate(size)
}

func (f *faultFile) Datasync() error {
	if f.log {
		f.fs.syncs.Add(1)
		if fn := f.fs.beforeFn.Load(); fn != nil {
			(*fn)()
		}
		if e := f.fs.syncErr.Load(); e != nil {
			return *e
		}
		if info, err := f.OS().Stat(); err == nil {
			f.fs.mu.Lock()
			f.fs.synced[f.name] = max(f.fs.synced[f.name], info.Size())
			f.fs.mu.Unlock()
		}
	}
	if f.fs.lazy {
		return nil
	}
	return f.File.Datasync()
}
