package coordinator

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// Ticket names one request that waits for an answer. The runner chooses it;
// 0 is no ticket.
type Ticket uint64

// Effect is what a Group or a Transaction wants done. Effects are carried out in
// order.
type Effect interface{ effect() }

// Answer ends the wait of a ticket. Response has the version of the request.
type Answer struct {
	Ticket   Ticket
	Response kmsg.Response
}

// Append asks for records in the machine's partition. Appends of one machine are
// made in the order given, and each ends with one call of its Appended, in the
// same order.
type Append struct {
	ID       uint64
	Records  []wire.Record
	Producer *TxnProducer // whose transaction they are part of; nil: none
}

func (Answer) effect() {}
func (Append) effect() {}

// Appended tells that an Append is durable (code 0) or has failed with a
// Kafka error code.
func (g *Group) Appended(id uint64, code int16, now time.Time) []Effect {
	done, ok := g.appends[id]
	if !ok {
		return nil
	}
	delete(g.appends, id)
	done(code, now)
	return g.take()
}

// append asks for records and runs done when their fate is known.
func (g *Group) append(records []wire.Record, done func(code int16, now time.Time)) {
	g.lastAppend++
	g.appends[g.lastAppend] = done
	g.out = append(g.out, Append{ID: g.lastAppend, Records: records})
}

// answer ends the wait of t, if there is one.
func (g *Group) answer(t Ticket, r kmsg.Response) {
	if t != 0 {
		g.out = append(g.out, Answer{Ticket: t, Response: r})
	}
}

// take hands out the effects gathered since the last call.
func (g *Group) take() []Effect {
	out := g.out
	g.out = nil
	return out
}
