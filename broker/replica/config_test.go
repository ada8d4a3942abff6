package replica_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/replica"
	"kmirror/broker/storage"
)

// TestTables: every default fits its own definition, every synonym exists,
// names are unique and sorted.
func TestTables(t *testing.T) {
	brokers := make(map[string]replica.Definition)
	last := ""
	for _, d := range replica.BrokerConfigs() {
		if d.Name <= last || d.Doc == "" {
			t.Errorf("broker setting %q: out of order, twice, or without a text", d.Name)
		}
		last = d.Name
		brokers[d.Name] = d
		if d.Default != "" {
			if err := replica.ValidateBrokerConfig(d.Name, d.Default); err != nil {
				t.Error(err)
			}
		}
	}
	last = ""
	for _, d := range replica.TopicConfigs() {
		if d.Name <= last || d.Doc == "" {
			t.Errorf("topic setting %q: out of order, twice, or without a text", d.Name)
		}
		last = d.Name
		if err := replica.ValidateTopicConfig(d.Name, d.Default); err != nil {
			t.Error(err)
		}
		for _, s := range d.Synonyms {
			if b, ok := brokers[s.Name]; !ok || !b.Dynamic {
				t.Errorf("%s: synonym %s is no dynamic broker setting", d.Name, s.Name)
			}
		}
	}
}

func TestEffectiveDefaultsAreStorages(t *testing.T) {
	got := replica.Effective(nil, replica.Settings{})
	want := replica.TopicSettings{LogConfig: storage.DefaultLogConfig(), MinISR: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-storage's +table's):\n%s", diff)
	}
}

func TestEffectiveOrder(t *testing.T) {
	s := replica.Settings{
		Static:  map[string]string{"log.retention.hours": "2", "log.segment.bytes": "4096", "message.max.bytes": "1000"},
		Cluster: map[string]string{"message.max.bytes": "2000", "log.roll.hours": "1"},
		Broker:  map[string]string{"message.max.bytes": "3000"},
	}
	got := replica.Effective(map[string]string{
		"segment.bytes": " 8192 ", "cleanup.policy": "compact, delete", "message.timestamp.type": "LogAppendTime",
		"file.delete.delay.ms": "9223372036854775807", "min.insync.replicas": "2",
	}, s)
	if got.RetentionMillis != 2*3600*1000 || got.SegmentBytes != 8192 || got.MaxMessageBytes != 3000 || got.SegmentMillis != 3600*1000 ||
		!got.Compact || !got.Delete || !got.LogAppendTime || got.MinISR != 2 || got.FileDeleteDelay < time.Duration(math.MaxInt64)-time.Millisecond {
		t.Errorf("%+v", got)
	}
	if got := (replica.Settings{}).Int64("log.retention.ms"); got != 168*3600*1000 {
		t.Errorf("log.retention.ms without anything set: %d", got)
	}
	s.Static["log.retention.ms"] = "-1"
	s.Static["log.retention.minutes"] = "5"
	if got := replica.Effective(nil, s).RetentionMillis; got != -1 {
		t.Errorf("log.retention.ms comes first: got %d", got)
	}
	delete(s.Static, "log.retention.ms")
	if got := replica.Effective(nil, s).RetentionMillis; got != 5*60*1000 {
		t.Errorf("then log.retention.minutes: got %d", got)
	}
	if s.Int32("num.partitions") != 1 || !s.Bool("auto.create.topics.enable") || s.Get("nonsense") != "" || s.Int64("message.max.bytes") != 3000 {
		t.Error("broker settings")
	}
}

func TestValidateTopicConfig(t *testing.T) {
	for _, test := range []struct {
		name, value string
		ok          bool
	}{
		{"retention.ms", "-1", true},
		{"retention.ms", "-2", false},
		{"retention.ms", "1e3", false},
		{"retention.ms", "", false},
		{"retention.ms", "9223372036854775808", false},
		{"segment.bytes", "2147483648", false},
		{"segment.bytes", " 1048576 ", true},
		{"cleanup.policy", "compact,delete", true},
		{"cleanup.policy", "keep", false},
		{"cleanup.policy", "", false},
		{"compression.type", "zstd", true},
		{"compression.type", "zip", false},
		{"preallocate", "TRUE", true},
		{"preallocate", "1", false},
		{"min.cleanable.dirty.ratio", "0.1", true},
		{"min.cleanable.dirty.ratio", "1.1", false},
		{"min.cleanable.dirty.ratio", "NaN", false},
		{"remote.storage.enable", "false", true},
		{"remote.storage.enable", "true", false},
		{"num.partitions", "1", false},
		{"message.timestamp.type", "createtime", false},
	} {
		if err := replica.ValidateTopicConfig(test.name, test.value); (err == nil) != test.ok || !test.ok && !is(err, kerr.InvalidConfig) {
			t.Errorf("%s=%q: %v", test.name, test.value, err)
		}
	}
}

func TestAlterTopicConfigs(t *testing.T) {
	str := func(s string) *string { return &s }
	c := open(t, newMemLog(), 0)
	if _, err := c.CreateTopic(t.Context(), replica.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	type change = replica.ConfigChange
	for _, test := range []struct {
		name    string
		changes []change
		want    *kerr.Error
		left    map[string]string
	}{
		{"set", []change{{"retention.ms", replica.OpSet, str("5")}, {"segment.bytes", replica.OpSet, str("4096")}}, nil, map[string]string{"retention.ms": "5", "segment.bytes": "4096"}},
		{"one is bad: none is done", []change{{"retention.ms", replica.OpSet, str("6")}, {"segment.bytes", replica.OpSet, str("0")}}, kerr.InvalidConfig, map[string]string{"retention.ms": "5", "segment.bytes": "4096"}},
		{"delete", []change{{"retention.ms", replica.OpDelete, nil}, {"flush.ms", replica.OpDelete, nil}}, nil, map[string]string{"segment.bytes": "4096"}},
		{"append to the inherited list", []change{{"cleanup.policy", replica.OpAppend, str("compact")}}, nil, map[string]string{"segment.bytes": "4096", "cleanup.policy": "delete,compact"}},
		{"subtract", []change{{"cleanup.policy", replica.OpSubtract, str("delete")}}, nil, map[string]string{"segment.bytes": "4096", "cleanup.policy": "compact"}},
		{"append to no list", []change{{"segment.bytes", replica.OpAppend, str("1")}}, kerr.InvalidConfig, nil},
		{"twice", []change{{"retention.ms", replica.OpSet, str("1")}, {"retention.ms", replica.OpSet, str("2")}}, kerr.InvalidRequest, nil},
		{"null", []change{{"retention.ms", replica.OpSet, nil}}, kerr.InvalidRequest, nil},
		{"unknown", []change{{"retention", replica.OpDelete, nil}}, kerr.InvalidConfig, nil},
		{"unknown operation", []change{{"retention.ms", 9, str("1")}}, kerr.InvalidRequest, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := c.Image()
			if err := c.AlterTopicConfigs(t.Context(), "t", test.changes, true); !is(err, test.want) || c.Image() != before {
				t.Errorf("validate only: %v", err)
			}
			if err := c.AlterTopicConfigs(t.Context(), "t", test.changes, false); !is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if test.left != nil {
				if diff := cmp.Diff(test.left, c.Image().Topic("t").Configs); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
	if err := c.AlterTopicConfigs(t.Context(), "nowhere", nil, false); !is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("no such topic: %v", err)
	}
	if err := c.ReplaceTopicConfigs(t.Context(), "t", map[string]*string{"retention.ms": str("7")}, false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"retention.ms": "7"}, c.Image().Topic("t").Configs); diff != "" {
		t.Error(diff)
	}
}

func TestAlterBrokerConfigs(t *testing.T) {
	log := newMemLog()
	c := open(t, log, 0)
	set := func(broker int32, name, value string) error {
		return c.AlterBrokerConfigs(t.Context(), broker, []replica.ConfigChange{{Name: name, Op: replica.OpSet, Value: &value}}, false)
	}
	if err := set(replica.AnyBroker, "log.retention.ms", "60000"); err != nil {
		t.Fatal(err)
	}
	if err := set(2, "log.retention.ms", "70000"); err != nil {
		t.Fatal(err)
	}
	if err := set(1, "num.partitions", "3"); !is(err, kerr.InvalidRequest) {
		t.Errorf("a setting of the file only: %v", err)
	}
	if err := set(9, "log.retention.ms", "1"); !is(err, kerr.InvalidRequest) {
		t.Errorf("no such broker: %v", err)
	}
	if err := set(1, "log.retention.ms", "soon"); !is(err, kerr.InvalidConfig) {
		t.Errorf("bad value: %v", err)
	}
	c = open(t, log, 0)
	for broker, want := range map[int32]int64{1: 60000, 2: 70000} {
		if got := replica.Effective(nil, c.Settings(broker)).RetentionMillis; got != want {
			t.Errorf("broker %d: retention.ms is %d, want %d", broker, got, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	s := replica.Settings{Static: map[string]string{"log.retention.hours": "1"}, Cluster: map[string]string{"log.retention.ms": "5"}}
	entries := replica.DescribeTopic(map[string]string{"retention.ms": "9"}, s, []string{"retention.ms", "segment.bytes", "nonsense"})
	if len(entries) != 2 {
		t.Fatalf("%d entries", len(entries))
	}
	r := entries[0]
	var chain []string
	for _, syn := range r.Synonyms {
		chain = append(chain, syn.Name+"="+*syn.Value)
	}
	if *r.Value != "9" || r.Source != replica.FromTopic || r.Type != replica.Long ||
		!slices.Equal(chain, []string{"retention.ms=9", "log.retention.ms=5", "log.retention.hours=1", "log.retention.hours=168"}) {
		t.Errorf("%+v %v", r, chain)
	}
	if e := entries[1]; *e.Value != "1073741824" || e.Source != replica.FromDefault || len(e.Synonyms) != 1 || e.Synonyms[0].Name != "log.segment.bytes" {
		t.Errorf("%+v", e)
	}
	if got := len(replica.DescribeTopic(nil, s, nil)); got != len(replica.TopicConfigs()) {
		t.Errorf("%d of %d topic settings", got, len(replica.TopicConfigs()))
	}
	b := replica.DescribeBroker(s, []string{"log.retention.ms", "num.partitions", "broker.rack"})
	if len(b) != 3 || b[0].Value != nil || !b[0].ReadOnly || *b[1].Value != "5" || b[1].Source != replica.FromClusterBroker || b[1].ReadOnly || !b[2].ReadOnly || *b[2].Value != "1" {
		t.Errorf("%+v", b)
	}
}
