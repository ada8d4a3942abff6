package consul_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"kmirror/topology/consul"
)

func TestConfigIsChecked(t *testing.T) {
	good := consul.Config{Instance: "edge-1", Address: "127.0.0.1:8500", Prefix: "kmirror", TTL: consul.MinTTL}
	if _, err := consul.New(good); err != nil {
		t.Error(err)
	}
	for what, spoil := range map[string]func(*consul.Config){
		"instance": func(c *consul.Config) { c.Instance = "edge/1" },
		"prefix":   func(c *consul.Config) { c.Prefix = "/" },
		"TTL":      func(c *consul.Config) { c.TTL = consul.MinTTL - 1 },
		"protocol": func(c *consul.Config) { c.Address = "gopher://consul:70" },
	} {
		bad := good
		spoil(&bad)
		if _, err := consul.New(bad); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("a bad %s: got %v", what, err)
		}
	}
}

func TestValuesComeBack(t *testing.T) {
	random := rand.NewChaCha8([32]byte{3})
	for _, size := range []int{0, 1, 1023, 1024, 200 << 10, 256 << 10, 257 << 10, 1 << 20, 3 << 20} {
		value := make([]byte, size)
		_, _ = random.Read(value)
		head, pieces, version, err := consul.Pack(value)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if len(head) > 256<<10 || (len(pieces) > 0) != (version != "") {
			t.Errorf("%d bytes: a head of %d, %d pieces, version %q", size, len(head), len(pieces), version)
		}
		got, err := consul.Unpack(head, func(asked string) ([][]byte, error) {
			if asked != version {
				t.Errorf("asked for version %q, want %q", asked, version)
			}
			return pieces, nil
		})
		if err != nil || !bytes.Equal(got, value) {
			t.Errorf("%d bytes come back as %d, %v", size, len(got), err)
		}
		if len(pieces) > 0 { // whatever is missing or another's is noticed
			for _, torn := range [][][]byte{nil, pieces[1:], append(pieces[:1:1], pieces...)} {
				if _, err := consul.Unpack(head, func(string) ([][]byte, error) { return torn, nil }); err == nil {
					t.Errorf("%d of %d pieces are taken for the value", len(torn), len(pieces))
				}
			}
		}
	}
	incompressible := make([]byte, 16<<20)
	_, _ = random.Read(incompressible)
	if _, _, _, err := consul.Pack(incompressible); !errors.Is(err, consul.ErrTooLarge) {
		t.Errorf("16 MiB of noise: got %v", err)
	}
}

// A value of any key never panics, and never inflates without bound.
func FuzzUnpack(f *testing.F) {
	for _, value := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("abc"), 1000)} {
		head, _, _, err := consul.Pack(value)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(head)
	}
	f.Add([]byte{1, 0x1f, 0x8b})
	f.Add(append([]byte{2}, make([]byte, 44)...))
	f.Fuzz(func(_ *testing.T, at []byte) {
		_, _ = consul.Unpack(at, func(string) ([][]byte, error) { return [][]byte{at}, nil })
	})
}
