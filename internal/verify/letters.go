package verify

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// letters are the records of a topic that stand in a dead-letter topic; nil for
// a flow that writes none. They are read when they are first asked for.
func (p *preparation) letters(topic string) *letters {
	flow := p.v.Flow
	name := flow.LetterTopic(topic)
	if !flow.WritesLetters() || p.here.Topics[name] == nil {
		return nil
	}
	return &letters{
		target: p.target, flow: flow.Name, topic: topic, letters: name,
		partitions: len(p.here.Topics[name].Partitions), reading: make(chan struct{}, 1),
	}
}

// letters finds dead letters by the record's place in the source.
type letters struct {
	target               Cluster
	flow, topic, letters string
	partitions           int

	reading chan struct{} // capacity 1: whoever filled it owns the field below
	found   map[int32]map[int64]bool
}

// maxLetters bounds how many are remembered.
const maxLetters = 1 << 20

var errTooManyLetters = errors.New("too many dead letters")

func (l *letters) has(ctx context.Context, partition int32, offset int64) (bool, error) {
	select {
	case l.reading <- struct{}{}:
		defer func() { <-l.reading }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if l.found == nil {
		if err := l.read(ctx); err != nil {
			return false, err
		}
	}
	return l.found[partition][offset], nil
}

func (l *letters) read(ctx context.Context) error {
	found, n := map[int32]map[int64]bool{}, 0
	for id := range int32(l.partitions) {
		start, err := l.target.ListOffset(ctx, l.letters, id, kafka.Earliest)
		if err != nil {
			return fmt.Errorf("read the dead letters: %w", err)
		}
		_, err = l.target.Read(ctx, l.letters, id, start, func(r wire.Record) error {
			partition, offset, ok := l.of(r.Headers)
			if !ok {
				return nil
			}
			if n++; n > maxLetters {
				return errTooManyLetters
			}
			if found[partition] == nil {
				found[partition] = map[int64]bool{}
			}
			found[partition][offset] = true
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the dead letters: %w", err)
		}
	}
	l.found = found
	return nil
}

// of reads a letter's headers: where in the source its record stood.
func (l *letters) of(headers []wire.Header) (partition int32, offset int64, ok bool) {
	at := map[string]string{}
	for _, h := range headers {
		at[h.Key] = string(h.Value)
	}
	if at["kmirror.flow"] != l.flow || at["kmirror.source.topic"] != l.topic {
		return 0, 0, false
	}
	p, errP := strconv.ParseInt(at["kmirror.source.partition"], 10, 32)
	o, errO := strconv.ParseInt(at["kmirror.source.offset"], 10, 64)
	return int32(p), o, errP == nil && errO == nil
}
