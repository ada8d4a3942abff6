package topology_test

import (
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kmirror/topology"
)

func noEnv(string) (string, bool) { return "", false }

var ignoreCompiled = cmp.Options{
	cmpopts.IgnoreUnexported(topology.Flow{}, topology.StartRule{}, topology.TopicRule{}, topology.Filter{}, topology.RenameRule{}, topology.Config{}),
	cmpopts.EquateEmpty(),
}
