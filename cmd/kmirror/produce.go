package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/spf13/cobra"

	"kmirror/internal/console"
	"kmirror/internal/kafka"
)

type produceOptions struct {
	separator   string
	headers     []string
	file        string
	partition   int32
	compression string
	emptyNull   bool
	maxBytes    int
}

// produced is what `kmirror produce` reports.
type produced struct {
	Cluster    string          `json:"cluster"`
	Topic      string          `json:"topic"`
	Records    int64           `json:"records"`
	Bytes      int64           `json:"bytes"` // of keys and values
	Partitions map[int32]int64 `json:"partitions"`
	Millis     int64           `json:"millis"`
}

func (a *app) produceCommand() *cobra.Command {
	var o produceOptions
	command := &cobra.Command{
		Use:   "produce CLUSTER TOPIC",
		Short: "Write lines from stdin as records",
		Long: `Writes every line of stdin, or of a file, as one record; idempotent and
acknowledged by all in-sync replicas. Keys go to the partition where the Java
client would put them. Typed by hand, every line is sent as it is entered; end with ctrl-d.`,
		Example: `  echo hello | kmirror produce east greetings
  kmirror produce east orders -k : --file orders.txt      # lines of key:value
  kmirror produce east orders -k : --empty-as-null <<< '42:'   # a tombstone
  kmirror produce hq audit --header source=cli --header by=ops`,
		GroupID:           "clusters",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeClusters(1),
		RunE: func(command *cobra.Command, args []string) error {
			return a.produce(command.Context(), args[0], args[1], o)
		},
	}
	flags := command.Flags()
	flags.StringVarP(&o.separator, "key-separator", "k", "", "`TEXT` between key and value in a line; without it keys are null")
	flags.StringArrayVarP(&o.headers, "header", "H", nil, "a header of every record, `NAME=VALUE`; may be repeated")
	flags.StringVarP(&o.file, "file", "f", "", "read lines from `FILE` in place of stdin")
	flags.Int32VarP(&o.partition, "partition", "p", -1, "write to this `PARTITION` whatever the key")
	flags.StringVar(&o.compression, "compression", "none", "`CODEC`: none, gzip, snappy, lz4 or zstd")
	flags.BoolVar(&o.emptyNull, "empty-as-null", false, "an empty value is a null")
	flags.IntVar(&o.maxBytes, "max-bytes", 1<<20, "the longest line in `BYTES`")
	return command
}

// saramaProducer fits the options onto a configuration.
func (o produceOptions) saramaProducer(c *sarama.Config) error {
	codecs := map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}
	codec, ok := codecs[o.compression]
	if !ok {
		return withCode(exitUsage, fmt.Errorf("--compression %s: it is none, gzip, snappy, lz4 or zstd", o.compression))
	}
	if o.maxBytes < 1 || o.maxBytes > 64<<20 {
		return withCode(exitUsage, fmt.Errorf("--max-bytes %d: it is 1 to %d", o.maxBytes, 64<<20))
	}
	p := &c.Producer
	p.RequiredAcks, p.Idempotent, c.Net.MaxOpenRequests = sarama.WaitForAll, true, 1
	p.Return.Successes, p.Return.Errors = true, true
	p.Compression = codec
	c.Metadata.AllowAutoTopicCreation = true // a topic that was named on the command line is meant
	p.MaxMessageBytes = o.maxBytes + 64<<10  // the line, and room for headers and the batch's own
	p.Partitioner = sarama.NewMurmur2Partitioner
	if o.partition >= 0 {
		p.Partitioner = sarama.NewManualPartitioner
	}
	return nil
}

func (o produceOptions) recordHeaders() ([]sarama.RecordHeader, error) {
	var headers []sarama.RecordHeader
	for _, h := range o.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return nil, withCode(exitUsage, fmt.Errorf("--header %q: write it as NAME=VALUE", h))
		}
		headers = append(headers, sarama.RecordHeader{Key: []byte(name), Value: []byte(value)})
	}
	return headers, nil
}

func (a *app) produce(ctx context.Context, clusterName, topic string, o produceOptions) error {
	headers, err := o.recordHeaders()
	if err != nil {
		return err
	}
	input, size, err := a.openInput(o.file)
	if err != nil {
		return err
	}
	defer func() { _ = input.Close() }()
	_, cluster, metadata, err := a.connectByName(ctx, clusterName)
	if err != nil {
		return err
	}
	defer cluster.close()
	if err := o.checkPartition(metadata, clusterName, topic); err != nil {
		return err
	}
	cfg, err := cluster.Sarama() //nolint:contextcheck // sarama dials later, with contexts of its own
	if err != nil {
		return withCode(exitUsage, err)
	}
	if err := o.saramaProducer(cfg); err != nil {
		return err
	}
	producer, err := await(ctx, func() (sarama.AsyncProducer, error) {
		return sarama.NewAsyncProducer(cluster.topology.Addresses(), cfg)
	})
	if err != nil {
		return fmt.Errorf("produce to %s: %w", clusterName, err)
	}
	work := &producing{
		app: a, producer: producer, topic: topic, headers: headers, partition: o.partition, size: size,
		lines:  newLineReader(input, o.separator, o.emptyNull, o.maxBytes),
		report: produced{Cluster: clusterName, Topic: topic, Partitions: map[int32]int64{}},
	}
	if a.inTerminal && o.file == "" {
		fmt.Fprintf(a.err, "one record per line into %s of %s; end with ctrl-d\n", topic, clusterName)
	}
	err = work.run(ctx)
	if reportErr := a.reportProduced(work.report); err == nil {
		err = reportErr
	}
	return explainProduce(err, clusterName, topic)
}

func explainProduce(err error, cluster, topic string) error {
	if errors.Is(err, sarama.ErrUnknownTopicOrPartition) {
		return withCode(exitNotFound, fmt.Errorf("no topic %q in %s, and the cluster does not create it by itself: create it first", topic, cluster))
	}
	return err
}

// openInput opens the file, or stdin; size is -1 where nobody knows it.
func (a *app) openInput(path string) (input io.ReadCloser, size int64, err error) {
	if path == "" || path == "-" {
		return io.NopCloser(a.in), -1, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, withCode(exitUsage, err)
	}
	size = -1
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	return file, size, nil
}

func (o produceOptions) checkPartition(metadata *kafka.Metadata, cluster, topic string) error {
	found := metadata.Topics[topic]
	if o.partition < 0 || found == nil || int(o.partition) < len(found.Partitions) {
		return nil
	}
	return withCode(exitNotFound, fmt.Errorf("topic %s of %s has no partition %d: it has 0 to %d", topic, cluster, o.partition, len(found.Partitions)-1))
}

func (a *app) reportProduced(p produced) error {
	if a.wantsJSON() {
		return a.writeJSON(p)
	}
	_, err := fmt.Fprintf(a.err, "%s (%s) into %s of %s, %s, in %d ms\n",
		plural(int(p.Records), "record"), console.FormatBytes(float64(p.Bytes)), p.Topic, p.Cluster, plural(len(p.Partitions), "partition"), p.Millis)
	return err
}

// producing is one run of lines into a producer.
type producing struct {
	app       *app
	producer  sarama.AsyncProducer
	lines     *lineReader
	topic     string
	headers   []sarama.RecordHeader
	partition int32
	size      int64 // of the input in bytes, -1 unknown

	report produced // owned by run
}

// run sends until the input ends, ctx ends, or a record is refused; then it
// waits for what is under way. The first fault is returned.
func (p *producing) run(ctx context.Context) error {
	started := time.Now()
	defer func() { p.report.Millis = time.Since(started).Milliseconds() }()
	input := make(chan error, 1)
	records := make(chan keyValue, 256)
	stop := make(chan struct{})
	go func() { // may stay behind in a read of stdin when ctx ends; the process is over then
		defer close(records)
		for {
			record, err := p.lines.next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					input <- err
				}
				return
			}
			select {
			case records <- record:
			case <-stop:
				return
			}
		}
	}()

	progress := p.app.progress()
	defer progress.done()
	var first error
	var next *sarama.ProducerMessage
	source := records
	for open := true; open; {
		var send chan<- *sarama.ProducerMessage
		if next != nil {
			send = p.producer.Input()
			source = nil
		}
		select {
		case record, more := <-source:
			if !more {
				open = false
				break
			}
			next = p.message(record)
		case send <- next:
			next, source = nil, records
		case ack := <-p.producer.Successes():
			p.acknowledged(ack, progress)
		case refused := <-p.producer.Errors():
			first, open = describe(refused), false
		case <-ctx.Done():
			first, open = ctx.Err(), false
		}
	}
	close(stop)
	p.producer.AsyncClose()
	successes, faults := p.producer.Successes(), p.producer.Errors()
	for successes != nil || faults != nil {
		select {
		case ack, more := <-successes:
			if !more {
				successes = nil
				break
			}
			p.acknowledged(ack, progress)
		case refused, more := <-faults:
			if !more {
				faults = nil
				break
			}
			if first == nil {
				first = describe(refused)
			}
		}
	}
	select {
	case err := <-input:
		return errors.Join(first, err)
	default:
		return first
	}
}

func (p *producing) message(record keyValue) *sarama.ProducerMessage {
	m := &sarama.ProducerMessage{Topic: p.topic, Headers: p.headers, Metadata: record.line}
	if record.key != nil {
		m.Key = sarama.ByteEncoder(record.key)
	}
	if record.value != nil {
		m.Value = sarama.ByteEncoder(record.value)
	}
	if p.partition >= 0 {
		m.Partition = p.partition
	}
	return m
}

func (p *producing) acknowledged(m *sarama.ProducerMessage, progress *progress) {
	p.report.Records++
	p.report.Partitions[m.Partition]++
	for _, part := range []sarama.Encoder{m.Key, m.Value} {
		if part != nil {
			p.report.Bytes += int64(part.Length())
		}
	}
	progress.step(time.Now(), func(elapsed time.Duration) string {
		text := fmt.Sprintf("%d records, %s, %s", p.report.Records, console.FormatBytes(float64(p.report.Bytes)), console.FormatByteRate(float64(p.report.Bytes)/elapsed.Seconds()))
		if p.size > 0 {
			text += fmt.Sprintf(", %d %%", min(100, p.report.Bytes*100/p.size))
		}
		return text
	})
}

func describe(e *sarama.ProducerError) error {
	return fmt.Errorf("line %v: %w", e.Msg.Metadata, e.Err)
}
