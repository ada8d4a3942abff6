package integration_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// incident is what the stories read of kmirror incidents -o json.
type incident struct {
	ID           uint64    `json:"id"`
	Time         time.Time `json:"time"`
	Flow         string    `json:"flow"`
	Topic        string    `json:"topic"`
	Partition    int32     `json:"partition"`
	Kind         string    `json:"kind"`
	SourceOffset int64     `json:"source_offset"`
	TargetOffset int64     `json:"target_offset"`
	Count        int64     `json:"count"`
	Detail       string    `json:"detail"`
	Action       string    `json:"action"`
	Times        int64     `json:"times"`
}

// incidents asks the daemon for all of them.
func (d *daemon) incidents() ([]incident, error) {
	body, err := d.get("/api/v1/incidents?limit=1000")
	if err != nil {
		return nil, err
	}
	var list struct {
		Incidents []incident `json:"incidents"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	return list.Incidents, nil
}

// incident waits for an incident of the kind about the topic and returns the
// newest.
func (d *daemon) incident(kind, topic string) incident {
	d.w.t.Helper()
	var found incident
	eventually(d.w.t, 40*time.Second, "incident "+kind+" of "+topic, func() error {
		all, err := d.incidents()
		if err != nil {
			return err
		}
		var kinds []string
		for _, in := range slices.Backward(all) {
			if in.Topic == topic && in.Kind == kind {
				found = in
				return nil
			}
			if in.Topic == topic {
				kinds = append(kinds, in.Kind)
			}
		}
		_, state := d.partition(topic, 0)
		return fmt.Errorf("of this topic there are %v; partition 0 is %s", kinds, state)
	})
	return found
}

// partition is the state of one partition, and the same with its reason.
func (d *daemon) partition(topic string, partition int32) (state, full string) {
	s, err := d.status()
	if err != nil {
		return "", err.Error()
	}
	for _, flow := range s.Flows {
		for _, x := range flow.Topics {
			if x.Source != topic {
				continue
			}
			for _, p := range x.Partitions {
				if p.Partition == partition {
					return p.State, p.State + ": " + p.Error
				}
			}
		}
	}
	return "", "not there"
}

// topicError is why a whole topic is not mirrored, "" when it is.
func (d *daemon) topicError(topic string) string {
	s, err := d.status()
	if err != nil {
		return err.Error()
	}
	for _, flow := range s.Flows {
		for _, x := range flow.Topics {
			if x.Source == topic {
				return x.Error
			}
		}
	}
	return "not there"
}

// becomes waits until the partition is in that state.
func (d *daemon) becomes(state, topic string, partition int32) {
	d.w.t.Helper()
	eventually(d.w.t, 40*time.Second, fmt.Sprintf("%s/%d %s", topic, partition, state), func() error {
		now, full := d.partition(topic, partition)
		if now != state {
			return fmt.Errorf("it is %s", full)
		}
		return nil
	})
}
