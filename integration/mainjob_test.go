package integration_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestMainJob mirrors this machine's own package index: tens of thousands of
// real records, keyed by package name, piped into east by kcat and read back
// from west by other clients.
func TestMainJob(t *testing.T) {
	packages := packageIndex(t)
	w := newWorld(t)
	d := w.run("main", twoClusters)
	w.create("east", "packages", 4)

	// kcat keeps the stanzas whole by separators that no text has.
	var input bytes.Buffer
	for _, p := range packages {
		input.WriteString(p.name + "\x1f" + p.stanza + "\x1e")
	}
	half := len(packages) / 2
	pieces := strings.SplitAfterN(input.String(), "\x1e", half+1)
	first, second := strings.Join(pieces[:half], ""), pieces[half]
	produce := []string{"-P", "-t", "packages", "-K", "\x1f", "-D", "\x1e", "-H", "origin=apt"}
	w.kcat("east", first, append(produce, "-z", "lz4")...)
	w.kcat("east", second, append(produce, "-z", "zstd")...)

	want, got := w.mirrored("east", "packages", "west", "east.packages")
	if n := count(want); n != len(packages) {
		t.Fatalf("east holds %d records of %d packages", n, len(packages))
	}
	if what := sameLogs(want, got); what != "" {
		t.Fatalf("west is not what east is: %s", what)
	}

	// Each key has its packages in the order of the index.
	sent, arrived := map[string][]string{}, map[string][]string{}
	for _, p := range packages {
		sent[p.name] = append(sent[p.name], p.stanza)
	}
	for _, partition := range slices.Sorted(maps.Keys(got)) {
		for _, r := range got[partition] {
			arrived[string(r.Key)] = append(arrived[string(r.Key)], string(r.Value))
		}
	}
	if !maps.EqualFunc(sent, arrived, slices.Equal) {
		t.Errorf("west has %d keys, the index has %d; or their records are not the same", len(arrived), len(sent))
	}

	// Clients that share no code with us or with each other agree, byte for byte.
	sums := checksums(got)
	for _, library := range []string{"kafka-python", "confluent-kafka"} {
		t.Run("read by "+library, func(t *testing.T) {
			w := w.in(t)
			var theirs map[string]checksum
			out := w.python("checksum.py", library, w.addr("west"), "east.packages", strconv.Itoa(len(packages)))
			if err := json.Unmarshal([]byte(out), &theirs); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if !maps.Equal(sums, theirs) {
				t.Errorf("got %v, want %v", theirs, sums)
			}
		})
	}

	// What the daemon says of itself agrees.
	s := d.mustStatus()
	if len(s.Flows) != 1 || s.Flows[0].State != "mirroring" {
		t.Errorf("status: %+v", s)
	}
	t.Logf("%d packages, %d bytes", len(packages), input.Len())
}

// debian is one package of the index.
type debian struct{ name, stanza string }

// packageIndex is what apt knows of.
func packageIndex(t *testing.T) []debian {
	t.Helper()
	dump := command(t, t.TempDir(), "", tool(t, "apt-cache", "apt"), "dumpavail")
	var packages []debian
	for stanza := range strings.SplitSeq(dump, "\n\n") {
		name, _, _ := strings.Cut(strings.TrimPrefix(stanza, "Package: "), "\n")
		if name != "" && name != stanza {
			packages = append(packages, debian{name, stanza})
		}
	}
	if len(packages) < 10_000 {
		missing(t, "apt-cache dumpavail knows only "+strconv.Itoa(len(packages))+" packages: run apt-get update")
	}
	return packages
}

// checksum is a partition's records as a number; testdata/checksum.py computes
// the same from another client's records.
type checksum struct {
	Count  int    `json:"count"`
	SHA256 string `json:"sha256"`
}

func checksums(logs map[int32][]*kgo.Record) map[string]checksum {
	sums := map[string]checksum{}
	for partition, records := range logs {
		sum := sha256.New()
		for _, r := range records {
			hashBytes(sum, r.Key)
			hashBytes(sum, r.Value)
			var fixed []byte
			fixed = binary.BigEndian.AppendUint64(fixed, uint64(r.Timestamp.UnixMilli()))
			fixed = binary.BigEndian.AppendUint32(fixed, uint32(len(r.Headers)))
			sum.Write(fixed)
			for _, header := range r.Headers {
				hashBytes(sum, []byte(header.Key))
				hashBytes(sum, header.Value)
			}
		}
		sums[strconv.Itoa(int(partition))] = checksum{len(records), hex.EncodeToString(sum.Sum(nil))}
	}
	return sums
}

// hashBytes adds a length, -1 for null, and the bytes.
func hashBytes(sum hash.Hash, b []byte) {
	length := int32(len(b))
	if b == nil {
		length = -1
	}
	sum.Write(binary.BigEndian.AppendUint32(nil, uint32(length)))
	sum.Write(b)
}
