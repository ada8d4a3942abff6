package storage_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/broker/storage"
)

// TestHousekeeping lets a store run for days of fake time.
func TestHousekeeping(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	synctest.Test(t, func(t *testing.T) {
		s, err := storage.Open(storage.Options{Dir: dir, NodeID: 1, Fsync: storage.FsyncInterval, FsyncInterval: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		cfg := storage.DefaultLogConfig()
		cfg.TimestampAfterMax = 1 << 62 // the fake clock begins in 2000, the batches are of 2023
		l, err := s.Create("orders", topicID, 0, cfg)
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, s)
		stamp := func() int64 { return time.Now().UnixMilli() }
		mustAppend(t, l, numbered(t, 1, 0, 0, 1))
		if l.HighWatermark() != 1 || l.RecoveryPoint() != 0 {
			t.Errorf("at once: high watermark %d, recovery point %d", l.HighWatermark(), l.RecoveryPoint())
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if l.RecoveryPoint() != 1 {
			t.Errorf("after the interval: recovery point %d", l.RecoveryPoint())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if content, err := os.ReadFile(filepath.Join(dir, "recovery-point-offset-checkpoint")); err != nil || string(content) != "0\n1\norders 0 1\n" {
			t.Errorf("checkpoint %q, %v", content, err)
		}
		mustAppend(t, l, plain(t, stamp(), "young"))
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		if n := len(l.Producers()); n != 1 {
			t.Errorf("%d producers after 23 hours", n)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if n := len(l.Producers()); n != 0 {
			t.Errorf("%d producers after 25 hours", n)
		}
		stop()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
