package broker

import (
	"context"
	"sync"
)

// producerIDs hands out the ids of the block that the controller gave last.
type producerIDs struct {
	mu   sync.Mutex // guards the fields below; held over the controller when a block is used up
	next int64
	left int32
}

// nextProducerID is an id that nobody was ever given.
func (n *Node) nextProducerID(ctx context.Context) (int64, error) {
	p := &n.producers
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		first, count, err := n.controller.AllocateProducerIDs(ctx)
		if err != nil {
			return 0, err
		}
		p.next, p.left = first, count
	}
	id := p.next
	p.next++
	p.left--
	return id, nil
}
