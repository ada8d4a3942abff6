package topology

import _ "embed" // for the sample

//go:embed sample.yaml
var sample string

// Sample is the commented mirror.yaml that stands in the root of the repository:
// the default configuration, and the text that kmirror init writes.
func Sample() []byte { return []byte(sample) }
