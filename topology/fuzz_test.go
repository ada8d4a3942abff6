package topology_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kmirror/topology"
)

// Whatever a file holds: a configuration or faults, never a panic, and every
// fault says where it is and what to do.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(topology.Sample())
	f.Fuzz(func(t *testing.T, data []byte) {
		begun := time.Now()
		config, err := topology.Parse("mirror.yaml", data, env)
		if took := time.Since(begun); took > 30*time.Second { // under a second of work, on a machine that may have other things to do
			t.Errorf("took %v", took)
		}
		if (config == nil) == (err == nil) {
			t.Fatalf("got %v and %v", config, err)
		}
		if err == nil {
			if len(config.Clusters) == 0 || config.Instance == "" {
				t.Errorf("accepted without clusters or instance: %+v", config)
			}
			return
		}
		var faults topology.Faults
		if !errors.As(err, &faults) {
			t.Fatalf("got %T, want Faults", err)
		}
		for _, fault := range faults {
			if fault.Problem == "" || fault.Remedy == "" || fault.File != "mirror.yaml" || fault.Line < 0 {
				t.Errorf("incomplete fault %#v", fault)
			}
		}
	})
}
