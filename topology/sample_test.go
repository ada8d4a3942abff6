package topology_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmirror/topology"
)

func TestSampleIsTheFileInTheRoot(t *testing.T) {
	root, err := os.ReadFile(filepath.Join("..", "mirror.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(root), string(topology.Sample())); diff != "" {
		t.Errorf("topology/sample.yaml differs from /mirror.yaml (-root +sample):\n%s", diff)
	}
}

func TestSampleSaysTheDefaults(t *testing.T) {
	config, err := topology.Parse("mirror.yaml", topology.Sample(), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := topology.Default()
	if config.DataDir != want.DataDir || config.HTTP != want.HTTP || config.Buffer != want.Buffer || config.Log != want.Log {
		t.Errorf("got %+v, want the defaults %+v", config, want)
	}
	if len(config.Clusters) != 2 || len(config.Flows) != 1 || config.Coordination.Consul != nil {
		t.Fatalf("got %d clusters, %d flows, consul %v; want 2, 1, none", len(config.Clusters), len(config.Flows), config.Coordination.Consul)
	}
	for i, name := range []string{"east", "west"} {
		cluster := config.Clusters[i]
		address := map[string]string{"east": "127.0.0.1:19092", "west": "127.0.0.1:29092"}[name]
		if cluster.Name != name || cluster.Embedded == nil || !cmp.Equal(cluster.Addresses(), []string{address}) {
			t.Errorf("cluster %d is %+v, want %s embedded at %s", i, cluster, name, address)
		}
	}
	flow, err := topology.NewFlow("east", "west", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(flow, config.Flows[0], ignoreCompiled); diff != "" {
		t.Errorf("the flow differs from the default (-default +sample):\n%s", diff)
	}
}

// What stands in a comment of the sample is what counts when it is not there, or
// would be taken if it were: each commented line of the flow, taken for itself.
func TestSampleCommentsAreTrue(t *testing.T) {
	text := string(topology.Sample())
	begin, end := strings.Index(text, "    # policies:"), strings.Index(text, "    # dead_letter_topic:")
	if begin < 0 || end < begin {
		t.Fatal("the sample has no commented policies")
	}
	for name, block := range map[string]string{"policies": text[begin:end], "all of the flow": text[strings.Index(text, "    # exclude_topics:"):strings.Index(text, "# Several instances")]} {
		taken := strings.Replace(text, block, regexp.MustCompile(`(?m)^    # `).ReplaceAllString(block, "    "), 1)
		if name != "policies" {
			taken = strings.Replace(taken, "record_too_large: raise", "record_too_large: dead_letter", 1)
		}
		config, err := topology.Parse("mirror.yaml", []byte(taken), noEnv)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, taken)
		}
		want := topology.DefaultPolicies()
		want.ForeignWrites = topology.ForeignReport
		if name == "policies" && config.Flows[0].Policies != want {
			t.Errorf("the sample's policies are %+v, want the defaults %+v", config.Flows[0].Policies, want)
		}
	}
}
