package integration_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestFullDisk fills the disk under the daemon. Producers get an error, readers
// go on, nothing confirmed is lost, and with room again so do the producers.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	d := w.daemon("main", twoClusters)
	mountSmall(t, d.dataDir(), "24m")
	d.start()
	d.ready(readyWithin)
	h := newHistory("orders", 1, 4000)
	w.create("east", "orders", 1)

	client := w.client("east", kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordRetries(2),
		kgo.DisableIdempotentWrite(), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxProduceRequestsInflightPerBroker(1))
	var full error
	for range 20_000 {
		r := h.next(0)
		if err := client.ProduceSync(w.ctx(20*time.Second), r).FirstErr(); err != nil {
			full = err
			break
		}
		h.ack(r)
	}
	sent, confirmed := h.counts()
	if full == nil {
		t.Fatalf("a disk of 24 MB took %d records of 4 KB", sent)
	}
	t.Logf("after %d records: %v", confirmed, full)
	if !d.running() {
		t.Fatalf("the daemon ended: %v\n%s", d.err, d.tail(40))
	}
	if v := h.check(w.read("east", "orders")); !v.ok() {
		t.Errorf("read from the full disk:\n%s", v)
	}

	command(t, w.dir, "", "mount", "-o", "remount,size=96m", d.dataDir())
	eventually(t, 30*time.Second, "writing with room again", func() error {
		r := h.next(0)
		err := client.ProduceSync(w.ctx(10*time.Second), r).FirstErr()
		if err == nil {
			h.ack(r)
		} else if !d.running() {
			t.Fatalf("the daemon ended: %v\n%s", d.err, d.tail(40))
		}
		return err
	})
	w.exact(h, "east", "west", "east.orders")
	d.stop(20 * time.Second)
}

// mountSmall mounts a file system of the size at the directory, where the test
// may do that.
func mountSmall(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		// Not a matter of what is installed: without the right to mount there is
		// nothing that CI could promise.
		t.Skipf("SKIP: cannot mount a small file system: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
}

// TestTornTail leaves half a batch, and then noise, at the end of every segment
// of a killed daemon: recovery cuts it off and keeps everything confirmed.
func TestTornTail(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", twoClusters)
	h := newHistory("orders", 2, 400)
	w.create("east", "orders", 2)
	for _, garbage := range [][]byte{
		[]byte(strings.Repeat("noise", 1000)),
		batch(nil, 0, 1, record(0, []byte("half a batch")))[:70],
		flip(batch(nil, 0, 1, record(0, []byte("bit flip"))), 70),
		make([]byte, 4096),
	} {
		w.write("east", h, 200)
		w.mirrored("east", "orders", "west", "east.orders")
		d.kill()
		for _, segment := range segments(t, d.dataDir(), "orders-", "east.orders-", "__consumer_offsets-", "__kmirror_offset_map-") {
			appendTo(t, segment, garbage)
		}
		d.start()
		d.ready(readyWithin)
	}
	w.write("east", h, 200)
	w.exact(h, "east", "west", "east.orders")
}

// TestTargetLostItsTail cuts confirmed records off the target's log, as a
// restored backup or an unclean election would. They are mirrored again.
func TestTargetLostItsTail(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", twoClusters)
	h := newHistory("orders", 2, 400)
	w.create("east", "orders", 2)
	for range 5 {
		w.write("east", h, 100)
		w.mirrored("east", "orders", "west", "east.orders")
	}
	d.kill()
	for _, segment := range segments(t, d.dataDir(), "east.orders-") {
		info, err := os.Stat(segment)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(segment, info.Size()*2/3); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	d.ready(readyWithin)
	w.write("east", h, 100)
	w.exact(h, "east", "west", "east.orders")
}

// segments are the newest segment files of the partitions whose directory begins
// with one of the names.
func segments(t *testing.T, data string, names ...string) []string {
	t.Helper()
	newest := map[string]string{}
	err := filepath.WalkDir(data, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(name) != ".log" {
			return err
		}
		dir := filepath.Base(filepath.Dir(name))
		if slices.ContainsFunc(names, func(prefix string) bool { return strings.HasPrefix(dir, prefix) }) {
			newest[filepath.Dir(name)] = max(newest[filepath.Dir(name)], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(newest) == 0 {
		t.Fatalf("no segments of %q below %s", names, data)
	}
	var found []string
	for _, name := range newest {
		found = append(found, name)
	}
	return found
}

func appendTo(t *testing.T, name string, content []byte) {
	t.Helper()
	file, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Segments may be preallocated; the torn part then stands after the data.
	info, err := file.Stat()
	if err == nil {
		_, err = file.WriteAt(content, info.Size())
	}
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}
