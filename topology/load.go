package topology

import (
	"fmt"
	"io"
	"os"
)

// maxFile bounds a mirror.yaml, and a file that it names by ${file:PATH}, in bytes.
const maxFile = 1 << 20

// Load reads and checks a mirror.yaml. The error is [Faults] when the file could
// be read; otherwise it wraps the operating system's (errors.Is fs.ErrNotExist).
func Load(path string) (*Config, error) {
	data, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, os.LookupEnv)
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	return data, nil
}
