package broker

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// docs/protocol.md lists what the dispatch table serves.
func TestDocumentedVersions(t *testing.T) {
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| (\w+) \| (\d+-\d+) \|$`).FindAllStringSubmatch(string(text), -1) {
		got[row[1]+" "+row[2]] = row[3]
	}
	want := map[string]string{}
	for key, a := range (&Node{}).table() {
		want[fmt.Sprintf("%d %s", key, a.name)] = fmt.Sprintf("%d-%d", a.oldest, a.newest)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/protocol.md does not say what the node serves (-table +docs):\n%s", diff)
	}
}
