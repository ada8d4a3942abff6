package storage

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// meta is what meta.properties says: whose directory this is. Kafka knows all
// keys but cluster.name, which it ignores.
type meta struct {
	clusterID, clusterName, directoryID string
	nodeID                              int32
}

func (m meta) encode() []byte {
	out := fmt.Sprintf("#\nnode.id=%d\ndirectory.id=%s\nversion=1\ncluster.id=%s\n", m.nodeID, m.directoryID, m.clusterID)
	if m.clusterName != "" {
		out += "cluster.name=" + m.clusterName + "\n"
	}
	return []byte(out)
}

func decodeMeta(content []byte) (m meta, err error) {
	m.nodeID = -1
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
		case "version":
			if value != "1" {
				return m, fmt.Errorf("version %q is not 1", value)
			}
		case "cluster.id":
			m.clusterID = value
		case "cluster.name":
			m.clusterName = value
		case "directory.id":
			m.directoryID = value
		case "node.id":
			id, err := strconv.ParseInt(value, 10, 32)
			if err != nil {
				return m, fmt.Errorf("node.id: %w", err)
			}
			m.nodeID = int32(id)
		}
	}
	if m.clusterID == "" || m.nodeID < 0 {
		return m, errors.New("cluster.id or node.id is missing")
	}
	return m, nil
}

// openMeta checks that the directory belongs to the cluster and node of o, or
// makes it theirs when it belongs to nobody yet.
func openMeta(o Options) (meta, error) {
	path := filepath.Join(o.Dir, metaFile)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createMeta(o, path)
	}
	if err != nil {
		return meta{}, accessError(o.Dir, "cannot be read", err)
	}
	m, err := decodeMeta(content)
	if err != nil {
		return m, &DirError{Dir: o.Dir, Problem: metaFile + " is damaged", Remedy: "restore that file or choose another directory", Err: err}
	}
	const remedy = "point data_dir at the right directory, or choose an empty one"
	switch {
	case o.ClusterID != "" && m.clusterID != o.ClusterID:
		return m, &DirError{Dir: o.Dir, Problem: fmt.Sprintf("belongs to the cluster with id %s, not %s", m.clusterID, o.ClusterID), Remedy: remedy}
	case o.Cluster != "" && m.clusterName != "" && m.clusterName != o.Cluster:
		return m, &DirError{Dir: o.Dir, Problem: fmt.Sprintf("belongs to cluster %q, not %q", m.clusterName, o.Cluster), Remedy: remedy}
	case m.nodeID != o.NodeID:
		return m, &DirError{Dir: o.Dir, Problem: fmt.Sprintf("belongs to node %d, not %d", m.nodeID, o.NodeID), Remedy: remedy}
	}
	return m, nil
}

func createMeta(o Options, path string) (meta, error) {
	if other, err := filepath.Glob(filepath.Join(o.Dir, "*-[0-9]*", "*"+logSuffix)); err == nil && len(other) > 0 {
		return meta{}, &DirError{
			Dir: o.Dir, Problem: "holds partition logs but no " + metaFile,
			Remedy: "restore that file, or choose an empty directory",
		}
	}
	m := meta{clusterID: o.ClusterID, clusterName: o.Cluster, directoryID: EncodeID(NewID()), nodeID: o.NodeID}
	if m.clusterID == "" {
		m.clusterID = EncodeID(NewID())
	}
	err := writeFile(o.FS, path, m.encode(), true)
	if err == nil {
		err = o.FS.SyncDir(o.Dir)
	}
	if err != nil {
		return m, accessError(o.Dir, "cannot be written", err)
	}
	return m, nil
}

// NewID makes a random id of version 4, never one that Kafka reserves and never
// one that EncodeID begins with a dash, which command lines take for a flag.
func NewID() (id [16]byte) {
	for {
		_, _ = rand.Read(id[:]) // never fails: it ends the program instead
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		if id[0]>>2 != 62 { // '-'
			return id
		}
	}
}
