package replica

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Limits of one cluster; Kafka's are elsewhere or nowhere.
const (
	maxPartitionsPerRequest = 10_000 // Kafka's MAX_PARTITIONS_PER_BATCH
	maxPartitions           = 200_000
	maxConfigValue          = 32 << 10 // bytes of one value
	producerIDBlock         = 1000
	snapshotChunk           = 256 << 10 // bytes of one Append while a snapshot is written
	defaultSnapshotEvery    = 10_000
)

// Options are what a Controller is built from.
type Options struct {
	Log     Log
	Brokers []int32           // the brokers that partitions can be placed on, ascending; at least one
	Static  map[string]string // the settings brokers were started with, for defaults
	// Changed is told of every new image after it is durable and before it is
	// published, in order, from the goroutine that made it; with old nil once
	// at Open. This is the place to make and delete logs. It must not call the
	// Controller. Nil: nobody is told.
	Changed func(old, current *Image)
	// SnapshotEvery is how many records beyond a snapshot's own the log may
	// hold before it is rewritten; 0: 10 000.
	SnapshotEvery int
	Logger        *slog.Logger // nil: silent
}

// Controller is the one writer of the metadata. Its methods may be called from
// any goroutine; each returns when its change is durable and in the image.
// Refusals are *Error; another error means that the log cannot be written.
type Controller struct {
	log     Log
	brokers []int32
	static  map[string]string
	changed func(old, current *Image)
	every   int64
	logger  *slog.Logger

	image atomic.Pointer[Image]

	mu        sync.Mutex // makes the writer one; held over the log
	sinceSnap int64      // records since the last snapshot's end
	snapSize  int64      // records of the last snapshot
	broken    bool       // the log ends in a snapshot without an end
}

// Open replays the log and publishes the image. A record that cannot be read
// or does not fit is an error that names the log and the offset.
func Open(ctx context.Context, o Options) (*Controller, error) {
	if len(o.Brokers) == 0 {
		return nil, fmt.Errorf("open metadata: no broker to place partitions on")
	}
	c := &Controller{
		log: o.Log, brokers: o.Brokers, static: o.Static, changed: o.Changed,
		every: int64(o.SnapshotEvery), logger: o.Logger,
	}
	if c.every <= 0 {
		c.every = defaultSnapshotEvery
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	if c.changed == nil {
		c.changed = func(_, _ *Image) {}
	}
	image, p, err := replay(ctx, o.Log)
	if err != nil {
		return nil, fmt.Errorf("metadata log %s: %w", o.Log.Name(), err)
	}
	c.sinceSnap, c.broken = p.count, p.snapshot != nil
	c.changed(nil, image)
	c.image.Store(image)
	return c, nil
}

func replay(ctx context.Context, log Log) (*Image, *replayer, error) {
	p := &replayer{image: newImage()}
	first := true
	err := log.Read(ctx, func(offset int64, b []byte) error {
		r, err := decodeRecord(b)
		if err == nil && first && offset > 0 && r.kind != snapshotBegins {
			err = fmt.Errorf("the log begins with a record of kind %d, not with a snapshot", r.kind)
		}
		first = false
		if err == nil {
			err = p.apply(offset, r)
		}
		if err != nil {
			return fmt.Errorf("at offset %d: %w", offset, err)
		}
		return nil
	})
	return p.image, p, err
}

// Image is the cluster as it stands.
func (c *Controller) Image() *Image { return c.image.Load() }

// Settings are the settings in force on a broker.
func (c *Controller) Settings(broker int32) Settings { return c.Image().Settings(c.static, broker) }

// commit writes a record, applies and publishes it. Needs c.mu.
func (c *Controller) commit(ctx context.Context, r record) (*Image, error) {
	// A caller that goes away must not leave a record that is written but not applied.
	ctx = context.WithoutCancel(ctx)
	if c.broken || c.sinceSnap > c.every+2*c.snapSize {
		if err := c.snapshot(ctx); err != nil {
			return nil, err
		}
	}
	old := c.Image()
	current := old.clone()
	if err := current.apply(r); err != nil { // before it is written: a record that does not fit must never stand in the log
		return nil, fmt.Errorf("apply metadata record: %w", err)
	}
	first, err := c.log.Append(ctx, [][]byte{r.encode()})
	if err != nil {
		return nil, fmt.Errorf("append to metadata log %s: %w", c.log.Name(), err)
	}
	current.next = first + 1
	c.sinceSnap++
	c.changed(old, current)
	c.image.Store(current)
	return current, nil
}

// snapshot writes the image as it is and lets go of what was before. A crash
// leaves either the old records with a snapshot that does not count, or both,
// or the snapshot alone; each replays to this image. Needs c.mu.
func (c *Controller) snapshot(ctx context.Context) error {
	begin := int64(-1)
	var chunk [][]byte
	size, total := 0, int64(0)
	flush := func() error {
		if len(chunk) == 0 {
			return nil
		}
		c.broken = true
		first, err := c.log.Append(ctx, chunk)
		if err != nil {
			return fmt.Errorf("write snapshot to metadata log %s: %w", c.log.Name(), err)
		}
		if begin < 0 {
			begin = first
		}
		total += int64(len(chunk))
		chunk, size = nil, 0
		return nil
	}
	for _, r := range c.Image().records() {
		b := r.encode()
		if size > 0 && size+len(b) > snapshotChunk {
			if err := flush(); err != nil {
				return err
			}
		}
		chunk, size = append(chunk, b), size+len(b)
	}
	if err := flush(); err != nil {
		return err
	}
	c.broken, c.sinceSnap, c.snapSize = false, 0, total
	if err := c.log.Trim(begin); err != nil { // the log stays long, no more
		c.logger.Warn("metadata log not trimmed", slog.String("log", c.log.Name()), slog.Int64("before", begin), slog.Any("error", err))
	}
	return nil
}

// AllocateProducerIDs gives out count producer ids from first on; nobody ever
// gets them again.
func (c *Controller) AllocateProducerIDs(ctx context.Context) (first int64, count int32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = c.Image().nextPID
	if first > 1<<62 {
		return 0, 0, refuse(kerr.UnknownServerError, "Producer ids are exhausted")
	}
	if _, err := c.commit(ctx, record{kind: producerIDs, number: first + producerIDBlock}); err != nil {
		return 0, 0, err
	}
	return first, producerIDBlock, nil
}

// RenewLeadership begins the next leader epoch in every partition that broker
// leads: for a broker that comes back and may have lost the end of its logs, so
// that consumers notice (KIP-320). No record is written if it leads nothing.
func (c *Controller) RenewLeadership(ctx context.Context, broker int32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.Image().Topics() {
		for i := range t.Partitions {
			if t.Partitions[i].Leader == broker {
				_, err := c.commit(ctx, record{kind: leadershipRenewed, broker: broker})
				return err
			}
		}
	}
	return nil
}
