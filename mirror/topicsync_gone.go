package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/topology"
)

// missing deals with source topics that were there and are not any more. One
// that is missing among all topics may also be hidden from us (DESCRIBE was
// taken away), so it is asked for by name.
func (s *topicSync) missing(ctx context.Context, w *world, now time.Time) {
	for name, pair := range s.present {
		if w.byName[name] == nil {
			s.gone[name] = &absence{pair: pair, since: now}
			delete(s.present, name)
		}
	}
	for _, pair := range w.topics {
		delete(s.gone, pair.source.Name)
		if pair.target != nil && pair.problem == "" {
			s.present[pair.source.Name] = pair
		}
	}
	for name, a := range s.gone {
		if !s.flow().Selects(name) { // another pattern; nobody deleted anything
			delete(s.gone, name)
			continue
		}
		remove := s.flow().PoliciesFor(name).TopicDeleted == topology.DeletedDelete
		if a.told && (!remove || now.Sub(a.since) < deleteAfter) {
			continue
		}
		why := s.absent(ctx, name)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(why, kerr.UnknownTopicOrPartition):
		case errors.Is(why, kerr.TopicAuthorizationFailed):
			if !a.told {
				a.told = true
				s.incidents.Record(aboutTopic(s.flow().Name, name, KindAuthorization, fmt.Sprintf("source topic %s cannot be seen any more: %v", name, why),
					"waits, and goes on when DESCRIBE and READ are given back; the copy stays"))
			}
			continue
		default: // it is there, or nobody knows
			continue
		}
		if !a.told {
			a.told = true
			action := "the copy stays, by policy"
			if remove {
				action = fmt.Sprintf("the copy is deleted after %v, by policy", deleteAfter)
			}
			s.incidents.Record(aboutTopic(s.flow().Name, name, KindSourceDeleted, fmt.Sprintf("source topic %s was deleted", name), action))
		}
		if remove && now.Sub(a.since) >= deleteAfter {
			s.remove(ctx, a.pair)
			delete(s.gone, name)
		}
	}
}

// absent says why a topic of the source is not there; nil when it is.
func (s *topicSync) absent(ctx context.Context, name string) error {
	m, err := s.source.Metadata(ctx, name)
	if err != nil {
		return err
	}
	if t := m.Topics[name]; t != nil {
		return t.Err
	}
	return kerr.UnknownTopicOrPartition
}

// remove deletes the copy of a topic: the very one that was mirrored into, and
// no other that bears its name by now.
func (s *topicSync) remove(ctx context.Context, pair *topicPair) {
	m, err := s.target.Metadata(ctx, pair.targetName)
	if err == nil {
		t := m.Topics[pair.targetName]
		if t == nil || t.Err != nil || t.ID != pair.target.ID {
			return
		}
		err = s.deleteTopic(ctx, pair.targetName)
	}
	detail, action := fmt.Sprintf("the copy %s of a deleted source topic", pair.targetName), "deleted, by policy"
	if err != nil {
		action = fmt.Sprintf("it could not be deleted: %v; delete it by hand", err)
	}
	if ctx.Err() != nil {
		return
	}
	s.log.Info("target topic of a deleted source topic", slog.String("topic", pair.targetName), slog.String("action", action))
	s.incidents.Record(aboutTopic(s.flow().Name, pair.source.Name, KindSourceDeleted, detail, action))
}

func (s *topicSync) deleteTopic(ctx context.Context, name string) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = 20_000
	req.TopicNames = []string{name}
	one := kmsg.NewDeleteTopicsRequestTopic()
	one.Topic = new(name)
	req.Topics = append(req.Topics, one)
	raw, err := s.target.RequestController(ctx, req)
	if err != nil {
		return err
	}
	resp, ok := raw.(*kmsg.DeleteTopicsResponse)
	if !ok || len(resp.Topics) != 1 {
		return fmt.Errorf("delete topic %s: answered with %T", name, raw)
	}
	return kerr.ErrorForCode(resp.Topics[0].ErrorCode)
}
