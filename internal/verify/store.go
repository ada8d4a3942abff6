package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Selection is what the user chose to compare. Empty fields choose everything.
type Selection struct {
	Topics      []string `json:"topics,omitempty"` // of the source, sorted
	Partition   int32    `json:"partition"`        // -1: all
	SinceMillis int64    `json:"since,omitempty"`  // Unix milliseconds; 0: the beginning
	Sample      Sample   `json:"sample"`
	Canonical   bool     `json:"canonical,omitempty"`
}

// Differs names the first choice in which two selections differ; "" when they
// do not. The seed is no choice.
func (s Selection) Differs(other Selection) string {
	switch {
	case !slices.Equal(s.Topics, other.Topics):
		return "--topic"
	case s.Partition != other.Partition:
		return "--partition"
	case s.SinceMillis != other.SinceMillis:
		return "--since"
	case s.Sample.Share != other.Sample.Share: //nolint:gocritic // written down and read back, not computed
		return "--sample"
	case s.Canonical != other.Canonical:
		return "--canonical"
	}
	return ""
}

// Standing is a verification under way, as it is kept.
type Standing struct {
	Version   int                 `json:"version"` // 1; 2 with a Course
	Flow      string              `json:"flow"`
	Begun     time.Time           `json:"begun"`
	Selection Selection           `json:"selection"`
	Course    Course              `json:"course,omitzero"`
	Parts     []PartitionStanding `json:"partitions"`
}

// PartitionStanding is a job as it is kept. The ids say of which incarnations of
// the topics it speaks.
type PartitionStanding struct {
	Topic     string   `json:"topic"`
	TopicID   [16]byte `json:"topic_id"`
	TargetID  [16]byte `json:"target_id"`
	Partition int32    `json:"partition"`
	Before    int64    `json:"before"`
	Beyond    int64    `json:"beyond"`
	Gone      int64    `json:"gone"` // before it began
	Ranges    []Range  `json:"ranges"`
}

const (
	standingVersion = 1
	dividedVersion  = 2 // whoever knows only version 1 would take the present turn for all
)

// Store keeps the standing of one flow's verification in a file.
type Store struct{ Path string }

// Load reads what was kept; nil when there is nothing. A file that is not what
// Save wrote is an error that says so.
func (s Store) Load() (*Standing, error) {
	text, err := os.ReadFile(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // said above
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of the verification: %w", err)
	}
	var kept Standing
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, fmt.Errorf("state of the verification in %s: %w", s.Path, err)
	}
	if kept.Version != standingVersion && kept.Version != dividedVersion {
		return nil, fmt.Errorf("state of the verification in %s: version %d is not known", s.Path, kept.Version)
	}
	for i := range kept.Parts {
		for j := range kept.Parts[i].Ranges {
			if err := kept.Parts[i].Ranges[j].check(); err != nil {
				return nil, fmt.Errorf("state of the verification in %s: %s/%d: %w", s.Path, kept.Parts[i].Topic, kept.Parts[i].Partition, err)
			}
		}
	}
	return &kept, nil
}

// check says whether a range that was read can be gone on with.
func (r *Range) check() error {
	if r.From < 0 || r.From > r.Next || r.Next > r.To || r.TargetFrom < 0 || r.TargetFrom > r.TargetNext || r.TargetNext > r.TargetTo {
		return fmt.Errorf("range %d to %d stands at %d, %d", r.From, r.To, r.Next, r.TargetNext)
	}
	for _, state := range [][]byte{r.Digest.SourceState, r.Digest.TargetState} {
		if len(state) > 0 {
			if err := xxhash.New().UnmarshalBinary(state); err != nil {
				return fmt.Errorf("digest: %w", err)
			}
		}
	}
	return nil
}

// Save keeps the standing; a crash leaves the one before or this one.
func (s Store) Save(standing *Standing) error {
	standing.Version = standingVersion
	if standing.Course.divided() {
		standing.Version = dividedVersion
	}
	text, err := json.Marshal(standing)
	if err != nil {
		return fmt.Errorf("keep the state of the verification: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(s.Path), filepath.Base(s.Path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("keep the state of the verification: %w", err)
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	if closing := file.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(file.Name(), s.Path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
		return fmt.Errorf("keep the state of the verification: %w", err)
	}
	return nil
}

// Clear forgets what was kept.
func (s Store) Clear() error {
	if err := os.Remove(s.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the state of the verification: %w", err)
	}
	return nil
}
