package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"kmirror/topology"
)

// RestartError says that a configuration was not taken, because some of what it
// changes cannot change while the process runs.
type RestartError struct {
	Changes []topology.Change // those that need a restart
}

func (e *RestartError) Error() string {
	paths := make([]string, 0, len(e.Changes))
	for _, c := range e.Changes {
		paths = append(paths, c.Path)
	}
	return "nothing was taken of it: these need a restart: " + strings.Join(paths, ", ")
}

// Reload takes another configuration, whole or not at all, and returns what
// changes. Flows that come are begun, those that go let go of everything in
// order. A flow whose records would go elsewhere or be others (naming,
// separator, rename, filters, fence, the circle that it is in) drains and begins again; all else is
// applied to it as it runs. A *RestartError comes with the changes too.
//
// It returns when the flows that had to drain have.
func (e *Engine) Reload(config *topology.Config) ([]topology.Change, error) {
	e.reloading.Lock()
	defer e.reloading.Unlock()
	old := e.config()
	changes := topology.Diff(old, config)
	var restart []topology.Change
	for _, c := range changes {
		if !c.Live {
			restart = append(restart, c)
		}
	}
	if len(restart) > 0 {
		return changes, &RestartError{restart}
	}
	if len(changes) == 0 {
		return nil, nil
	}
	if len(old.Flows) == 0 || len(config.Flows) == 0 { // with the first flow this process becomes a member
		return changes, fmt.Errorf("nothing was taken of it: a process without flows cannot get any while it runs, nor lose its last: restart it")
	}
	anew := map[string]bool{}
	for _, f := range config.Flows {
		if was := old.Flow(f.Name); was != nil && dataPath(was) != dataPath(f) {
			anew[f.Name] = true
		}
	}
	if err := e.adopt(config); err != nil {
		return changes, err
	}
	e.shareThrottles()
	e.mu.Lock()
	l := e.life
	e.mu.Unlock()
	if l != nil {
		l.applying.Lock()
		l.reload(anew)
		l.apply()
		l.applying.Unlock()
	}
	e.mu.Lock()
	close(e.reloaded) // the leader begins again with these flows
	e.reloaded = make(chan struct{})
	e.mu.Unlock()
	for _, c := range changes {
		e.log.Info("mirror.yaml", slog.String("change", c.String()))
	}
	return changes, nil
}

// dataPath is a fingerprint of everything that decides which records of a flow
// go where. Two instances whose files differ in it must not carry the same flow
// at the same time: the one would write a topic's partitions to another target
// topic than the other, or leave out other records. So the leader's is in every
// assignment, and a member with another one carries nothing of the flow.
func dataPath(f *topology.Flow) string {
	type rename struct{ From, To string }
	type filter struct {
		Topics  []string
		Key     string
		Headers map[string]string
	}
	path := struct {
		From, To, Naming, Separator, Fence string
		Rename                             []rename
		Filters                            []filter
		Drops                              []string `json:",omitempty"`
		Refill                             bool     `json:",omitempty"`
	}{From: f.From, To: f.To, Naming: string(f.Naming), Separator: f.Separator, Fence: string(f.Fence), Drops: slices.Clone(f.Drops), Refill: f.Refill}
	slices.Sort(path.Drops)
	for _, r := range f.Rename {
		path.Rename = append(path.Rename, rename{r.From, r.To})
	}
	for _, x := range f.Filters {
		path.Filters = append(path.Filters, filter{x.Topics, x.Key, x.Headers})
	}
	text, err := json.Marshal(path)
	if err != nil { // strings always marshal
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}
