package topology_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmirror/topology"
)

var rewrite = flag.Bool("rewrite", false, "write the messages of testdata/*.bad.yaml anew")

// env is what the files in testdata may ask for. None of its values may show in a fault.
func env(name string) (string, bool) {
	value, ok := map[string]string{
		"SECRET": "hunter2 (never show this", "EMPTY": "", "MECHANISM": "hunter2", "NAME": "edge-7", "BUFFER": "128MiB", "PASSWORD": "b:#'\"", "TOKEN": "hunter2",
	}[name]
	return value, ok
}

func parseFile(t *testing.T, path string) (*topology.Config, error) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return topology.Parse(path, data, env)
}

func TestBadFilesGiveTheseFaults(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".bad.yaml")
		t.Run(name, func(t *testing.T) {
			config, err := parseFile(t, path)
			var faults topology.Faults
			if !errors.As(err, &faults) || len(faults) == 0 || config != nil {
				t.Fatalf("got %v, %v; want no config and Faults", config, err)
			}
			for _, fault := range faults {
				if fault.File != path || fault.Problem == "" || fault.Remedy == "" {
					t.Errorf("incomplete fault %#v", fault)
				}
			}
			got := strings.ReplaceAll(err.Error(), "testdata/", "") + "\n"
			if strings.Contains(got, "hunter2") {
				t.Errorf("a substituted value shows:\n%s", got)
			}
			golden := strings.TrimSuffix(path, ".yaml") + ".txt"
			if *rewrite {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGoodFilesAreGood(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.good.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, path := range paths {
		if _, err := parseFile(t, path); err != nil {
			t.Errorf("%s:\n%v", path, err)
		}
	}
}

func TestEveryKeyArrives(t *testing.T) {
	config, err := parseFile(t, "testdata/everything.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	external := func(name string, bootstrap []string, sasl *topology.SASL) *topology.Cluster {
		return &topology.Cluster{
			Name: name, Bootstrap: bootstrap, ClientID: "mirror-7",
			TLS:  &topology.TLS{CA: filepath.Join("testdata", "present.pem"), ServerName: "kafka", InsecureSkipVerify: true},
			SASL: sasl,
		}
	}
	first := topology.DefaultFlow("east", "west")
	first.Topics, first.ExcludeTopics = []string{`orders\..*`, "payments"}, []string{`orders\.tmp`}
	first.Groups, first.ExcludeGroups = []string{"billing-.*"}, nil
	first.Naming, first.Separator, first.ReplicationFactor = topology.Identity, "--", 2
	first.Start = []topology.StartRule{
		{Topics: []string{"payments"}, Start: topology.Start{Kind: topology.Timestamp, Millis: time.Date(2026, 1, 31, 11, 0, 0, 0, time.UTC).UnixMilli()}},
		{Topics: []string{"orders.*"}, Start: topology.Start{Kind: topology.Latest}},
		{Topics: []string{".*"}, Start: topology.Start{Kind: topology.MirrorMaker2}},
	}
	first.Configs = topology.ConfigSync{}
	first.GroupSync = topology.GroupSync{Enabled: true, Interval: 5 * time.Second, Deleted: topology.GroupDeletedDelete, Failback: true}
	first.InternalSeparator, first.OffsetSyncs = ".", topology.OffsetSyncsTarget
	first.MirrorMaker2 = topology.MirrorMaker2Store{OffsetsTopic: "connect-offsets", Connector: "east->west.MirrorSourceConnector"}
	first.Heartbeats, first.Checkpoints = false, false
	first.Policies.ForeignWrites = topology.ForeignIgnore
	second := topology.DefaultFlow("west", "east")
	second.Topics = []string{"metrics"}
	second.Policies.ForeignWrites = topology.ForeignReport
	second.GroupSync.Enabled, second.OffsetSyncs = false, topology.OffsetSyncsSource
	second.Separator, second.InternalSeparator, second.MirrorMaker2.OffsetsTopic = "-", "-", "mm2-offsets.west.internal"
	second.Start = []topology.StartRule{{
		Topics: []string{".*"},
		Start:  topology.Start{Kind: topology.Timestamp, Millis: time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC).UnixMilli()},
	}}
	want := &topology.Config{
		Path: "testdata/everything.good.yaml", Instance: "edge-7", DataDir: "/var/lib/kmirror", HTTP: ":7070", Buffer: 128 << 20,
		Log: topology.Log{Level: "debug", Format: "json"},
		Clusters: []*topology.Cluster{
			{Name: "east", ClientID: "kmirror", Embedded: &topology.Embedded{
				Nodes: []string{"0.0.0.0:19092"}, Advertised: []string{"edge.example.org:19092"}, Fsync: topology.FsyncInterval, FsyncInterval: 250 * time.Millisecond,
				Settings: map[string]string{"num.partitions": "6", "auto.create.topics.enable": "false", "compression.type": "producer"},
			}},
			external("west", []string{"kafka-1.example.org:9093", "[2001:db8::1]:9093"}, &topology.SASL{Mechanism: topology.MechanismScram512, User: "me", Password: topology.NewSecret("from-a-file")}),
			external("south", []string{"kafka-9:9092"}, &topology.SASL{Mechanism: topology.MechanismPlain, User: "${NAME}$", Password: topology.NewSecret(`ab:#'"z`)}),
		},
		Flows: []*topology.Flow{&first, &second},
		Coordination: topology.Coordination{Consul: &topology.Consul{
			Address: "https://consul.example.org:8501", Prefix: "kafka/mirror", Datacenter: "dc2", Token: topology.NewSecret("hunter2"), TTL: 30 * time.Second,
			TLS: &topology.TLS{Cert: filepath.Join("testdata", "present.pem"), Key: filepath.Join("testdata", "present.pem")},
		}},
	}
	reveal := cmp.Comparer(func(a, b topology.Secret) bool { return a.Reveal() == b.Reveal() })
	if diff := cmp.Diff(want, config, ignoreCompiled, reveal); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if got := config.Cluster("east").Addresses(); !cmp.Equal(got, []string{"127.0.0.1:19092"}) {
		t.Errorf("the engine would connect to %v, want the loopback address of the wildcard", got)
	}
	for _, f := range []struct{ got, want string }{
		{config.Flows[0].CheckpointsTopic(), "east.checkpoints.internal"},
		{config.Flows[0].OffsetSyncsTopic(), "mm2-offset-syncs.east.internal"},
		{config.Flows[1].CheckpointsTopic(), "west-checkpoints-internal"},
		{config.Flows[1].OffsetSyncsTopic(), "mm2-offset-syncs-east-internal"},
	} {
		if f.got != f.want {
			t.Errorf("internal topic %s, want %s", f.got, f.want)
		}
	}
	if config.Opposite(config.Flows[0]) != config.Flows[1] || config.Opposite(&topology.Flow{From: "east", To: "south"}) != nil {
		t.Error("the opposite flow is wrong")
	}
	if config.Cluster("nowhere") != nil || config.Flow("east->nowhere") != nil || config.Flow("west->east") != config.Flows[1] {
		t.Error("look-up by name is wrong")
	}
}

func TestLoadTellsAMissingFileFromAFaultyOne(t *testing.T) {
	dir := t.TempDir()
	if _, err := topology.Load(filepath.Join(dir, "mirror.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	big := filepath.Join(dir, "big.yaml")
	if err := os.WriteFile(big, []byte(strings.Repeat("# long\n", 1<<18)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.Load(big); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %v, want a word on the length", err)
	}
}

func TestRelativePathsStartAtTheFile(t *testing.T) {
	config, err := topology.Parse("/etc/kmirror/mirror.yaml", []byte("clusters: {a: {bootstrap: [a:9092]}}\ninstance: x"), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if config.DataDir != "/etc/kmirror/data" {
		t.Errorf("data directory is %s", config.DataDir)
	}
}

// Aliases of aliases make a small file large; the reader must notice before it is slow.
func TestManyAliasesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("clusters: {a: {bootstrap: [a:9092]}, b: {bootstrap: [b:9092]}}\nflows:\n- &flow\n  from: a\n  to: b\n  topics: [" + strings.Repeat("x,", 5000) + "x]\n")
	b.WriteString(strings.Repeat("- *flow\n", 50_000))
	begun := time.Now()
	_, err := topology.Parse("m.yaml", []byte(b.String()), noEnv)
	if err == nil || !strings.Contains(err.Error(), "aliases") {
		t.Errorf("got %.200v, want a word on aliases", err)
	}
	t.Log("took", time.Since(begun))
}

func TestTwoNamesOfOneClusterAreFound(t *testing.T) {
	config, err := parseFile(t, "testdata/shapes.good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := config.CheckClusterIDs(map[string]string{"a": "one", "b": "two", "c": "", "hub": ""}); err != nil {
		t.Errorf("different ids, and unknown ones: got %v", err)
	}
	err = config.CheckClusterIDs(map[string]string{"a": "one", "b": "two", "hub": "one"})
	const want = "testdata/shapes.good.yaml: clusters.hub: is the same cluster as a: both answer with cluster id one; keep one name for each cluster, and check the bootstrap addresses"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
