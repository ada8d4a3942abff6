package integration_test

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestQuickStart does what Kafka's own quick start does, with Kafka's own
// tools, against an embedded cluster.
func TestQuickStart(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", twoClusters)
	east := []string{"--bootstrap-server", w.addr("east")}
	with := func(args ...string) []string { return append(append([]string{}, east...), args...) }
	const (
		topics   = "org.apache.kafka.tools.TopicCommand"
		producer = "org.apache.kafka.tools.ConsoleProducer"
		consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer"
		groups   = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
		configs  = "kafka.admin.ConfigCommand"
		offsets  = "org.apache.kafka.tools.GetOffsetShell"
	)
	holds := func(what, out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(squeeze(out), want) {
				t.Errorf("%s: no %q in:\n%s", what, want, out)
			}
		}
	}

	holds("api versions", w.java("org.apache.kafka.tools.BrokerApiVersionsCommand", east...), "Produce(0)", "Fetch(1)", "JoinGroup(11)")
	holds("create", w.java(topics, with("--create", "--topic", "quickstart-events", "--partitions", "2", "--config", "retention.ms=3600000")...), "Created topic quickstart-events")
	if out, err := w.tryJava("", topics, with("--create", "--topic", "quickstart-events")...); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("create again: %v\n%s", err, out)
	}
	holds("describe", w.java(topics, with("--describe", "--topic", "quickstart-events")...), "PartitionCount: 2", "ReplicationFactor: 1", "retention.ms=3600000", "Leader: 1")
	holds("list", w.java(topics, with("--list")...), "quickstart-events")

	w.javaInput("This is my first event\nThis is my second event\n", producer, with("--topic", "quickstart-events")...)
	holds("consume", w.java(consumer, with("--topic", "quickstart-events", "--from-beginning", "--group", "readers", "--max-messages", "2", "--timeout-ms", "60000")...),
		"This is my first event", "This is my second event")
	holds("groups", w.java(groups, with("--list")...), "readers")
	holds("group", w.java(groups, with("--describe", "--group", "readers")...), "readers quickstart-events 0", "readers quickstart-events 1")
	holds("group state", w.java(groups, with("--describe", "--group", "readers", "--state")...), "Empty")
	holds("reset", w.java(groups, with("--group", "readers", "--topic", "quickstart-events", "--reset-offsets", "--to-earliest", "--execute")...), "quickstart-events")
	holds("offsets", w.java(offsets, with("--topic", "quickstart-events")...), "quickstart-events:0:", "quickstart-events:1:")
	holds("alter config", w.java(configs, with("--alter", "--entity-type", "topics", "--entity-name", "quickstart-events", "--add-config", "max.message.bytes=2000000")...), "Completed updating config")
	holds("describe config", w.java(configs, with("--describe", "--entity-type", "topics", "--entity-name", "quickstart-events")...), "max.message.bytes=2000000", "retention.ms=3600000")
	holds("add partitions", w.java(topics, with("--alter", "--topic", "quickstart-events", "--partitions", "3")...))
	holds("describe again", w.java(topics, with("--describe", "--topic", "quickstart-events")...), "PartitionCount: 3")

	holds("verifiable producer", w.java("org.apache.kafka.tools.VerifiableProducer", with("--topic", "verifiable", "--max-messages", "500", "--acks", "-1")...), `"acked":500`)
	holds("log dirs", w.java("org.apache.kafka.tools.LogDirsCommand", with("--describe", "--topic-list", "quickstart-events")...), `"partition":"quickstart-events-0"`)

	t.Run("mirrored", func(t *testing.T) {
		w := w.in(t)
		holds("consume in west", w.java(consumer, "--bootstrap-server", w.addr("west"), "--topic", "east.quickstart-events", "--from-beginning", "--max-messages", "2", "--timeout-ms", "60000"),
			"This is my first event", "This is my second event")
		eventually(t, 30*time.Second, "partitions and configs of the mirror", func() error {
			out := w.java(topics, "--bootstrap-server", w.addr("west"), "--describe", "--topic", "east.quickstart-events")
			for _, want := range []string{"PartitionCount: 3", "retention.ms=3600000", "max.message.bytes=2000000"} {
				if !strings.Contains(squeeze(out), want) {
					return fmt.Errorf("no %s in:\n%s", want, out)
				}
			}
			return nil
		})
	})

	t.Run("group members", func(t *testing.T) {
		w := w.in(t)
		w.kcat("east", "one\ntwo\nthree\n", "-P", "-t", "quickstart-events")
		client := start(t, w.dir, "kcat-member", nil, tool(t, "kcat", "kcat"), "-b", w.addr("east"), "-G", "balanced", "quickstart-events", "-X", "auto.offset.reset=earliest")
		eventually(t, 60*time.Second, "kcat's membership", func() error {
			out := w.java(groups, with("--describe", "--group", "balanced", "--members")...)
			if !strings.Contains(squeeze(out), "balanced rdkafka") {
				return fmt.Errorf("%s", out)
			}
			return nil
		})
		client.kill()
	})

	t.Run("delete", func(t *testing.T) {
		w := w.in(t)
		w.java(topics, with("--delete", "--topic", "verifiable")...)
		if out := w.java(topics, with("--list")...); strings.Contains(out, "verifiable") {
			t.Errorf("still listed:\n%s", out)
		}
		holds("delete group", w.java(groups, with("--delete", "--group", "readers")...), "was successful")
	})

	t.Run("segments", func(t *testing.T) {
		w := w.in(t)
		w.create("east", "segmented", 2, "segment.bytes=1048576")
		w.kcat("east", strings.Repeat("one line of many, so that there is something to index\n", 50_000), "-P", "-t", "segmented", "-X", "batch.num.messages=100")
		d.stop(20 * time.Second)
		w.judgedByKafka(d.dataDir(), "segmented-")
	})
}

// judgedByKafka lets Kafka's own tool read the segment files and indexes of the
// partitions whose directory begins with the name.
func (w *world) judgedByKafka(data, name string) {
	w.t.Helper()
	var logs, indexes []string
	err := filepath.WalkDir(data, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasPrefix(filepath.Base(filepath.Dir(file)), name) {
			return err
		}
		switch filepath.Ext(file) {
		case ".log":
			logs = append(logs, file)
		case ".index", ".timeindex":
			indexes = append(indexes, file)
		}
		return nil
	})
	if err != nil || len(logs) == 0 || len(indexes) == 0 {
		w.t.Fatalf("segments %q, indexes %q of %s below %s: %v", logs, indexes, name, data, err)
	}
	const tool = "kafka.tools.DumpLogSegments"
	dump := w.java(tool, "--deep-iteration", "--files", strings.Join(logs, ","))
	if !strings.Contains(dump, "isvalid: true") {
		w.t.Errorf("DumpLogSegments finds no batch:\n%.2000s", dump)
	}
	indexed := w.java(tool, "--verify-index-only", "--files", strings.Join(indexes, ","))
	for _, out := range []string{dump, indexed} {
		for _, complaint := range []string{"isvalid: false", "orrupt", "ismatch", "Exception", "Non-consecutive", "out of order"} {
			if at := strings.Index(out, complaint); at >= 0 {
				w.t.Errorf("DumpLogSegments complains: %s", out[max(0, at-300):min(len(out), at+700)])
			}
		}
	}
}

// squeeze makes one blank of every run of blanks.
func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }
