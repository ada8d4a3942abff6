package integration_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// link is the wire between a broker and its clients: a TCP proxy that a story
// can do harm to. It knows Kafka's frames, so that harm can be done to just one
// kind of request of just one client, and answers can be spoilt.
//
// A frame is passed on whole or not at all. Harm that tears the byte stream
// (deafness) dooms the connections it touched: they are reset when it is over.
type link struct {
	broker   string // where the frames go
	address  string // where clients connect
	listener net.Listener
	done     chan struct{}
	workers  sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	conns   map[*linked]struct{}
	harm    harm
	changed chan struct{}  // closed, and made anew, whenever harm changes
	held    map[string]int // requests that harm.hold is holding right now, by client
	seen    int            // answers that harm.spoil has changed
}

// harm is what a link does to those who use it. The zero value is none.
type harm struct {
	cut       bool                                         // nobody gets through: connections are reset, new ones too
	deaf      bool                                         // connections are taken, and whatever is sent on them vanishes
	stallTo   bool                                         // nothing moves towards the broker
	stallFrom bool                                         // nothing moves towards the clients
	delay     time.Duration                                // of each frame, in both directions
	hold      func(request) bool                           // requests that stay here, with all that follows them on their connection
	spoil     func(r request, answer []byte) (frame, bool) // answers that are replaced
}

// request is one request as it came: its header, and its frame without the size.
type request struct {
	key, version int16
	client       string
	id           int32
	frame        []byte
}

// frame is what a client gets in place of an answer: the bytes after the size,
// and whether the connection is reset after only so many of them.
type frame struct {
	bytes []byte
	half  bool
}

// linked is one client's connection and the one to the broker that serves it.
type linked struct {
	client, broker net.Conn

	mu      sync.Mutex // guards the fields below
	waiting []request  // sent to the broker, oldest first
	doomed  bool       // bytes are missing: it cannot be used any more
}

// newLink listens at the address for the broker. The caller closes it.
func newLink(t testing.TB, address, broker string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	l := &link{
		broker: broker, address: address, listener: listener, done: make(chan struct{}),
		conns: map[*linked]struct{}{}, changed: make(chan struct{}), held: map[string]int{},
	}
	l.workers.Go(l.accept)
	t.Cleanup(l.close)
	return l
}

// link puts a link at the address of that name, in front of the broker at
// another's.
func (w *world) link(name, broker string) *link {
	w.t.Helper()
	return newLink(w.t, w.addr(name), w.addr(broker))
}

func (l *link) close() {
	select {
	case <-l.done:
		return
	default:
	}
	close(l.done)
	l.listener.Close()
	l.reset()
	l.workers.Wait()
}

// do makes the link do this harm from now on, and no other.
func (l *link) do(h harm) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.harm = h
	l.held, l.seen = map[string]int{}, 0
	close(l.changed)
	l.changed = make(chan struct{})
	for c := range l.conns {
		c.mu.Lock()
		if h.cut || c.doomed && !h.deaf {
			c.reset()
		}
		c.mu.Unlock()
	}
}

// heal lets everything through again, also what was held.
func (l *link) heal() { l.do(harm{}) }

// reset resets every connection, once.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.reset()
	}
}

// holding is how many connections of the client have a request that is held.
func (l *link) holding(client string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[client]
}

// spoilt is how many answers were changed by the present harm.
func (l *link) spoilt() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

// links are the links to all brokers of a cluster.
type links []*link

// do does the same to all of them.
func (all links) do(h harm) {
	for _, l := range all {
		l.do(h)
	}
}

func (all links) heal() { all.do(harm{}) }

// holding is how many connections of the client have a request that is held.
func (all links) holding(client string) (n int) {
	for _, l := range all {
		n += l.holding(client)
	}
	return n
}

// reset ends both connections with a RST.
func (c *linked) reset() {
	for _, conn := range []net.Conn{c.client, c.broker} {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		conn.Close()
	}
}

func (l *link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		now, _ := l.present()
		if now.cut {
			c := &linked{client: client, broker: client}
			c.reset()
			continue
		}
		dialer := net.Dialer{Timeout: 5 * time.Second}
		broker, err := dialer.DialContext(context.Background(), "tcp", l.broker)
		if err != nil { // as if it had refused: the broker is not there
			c := &linked{client: client, broker: client}
			c.reset()
			continue
		}
		c := &linked{client: client, broker: broker}
		l.mu.Lock()
		l.conns[c] = struct{}{}
		l.mu.Unlock()
		select {
		case <-l.done: // close did not see this one
			c.reset()
		default:
		}
		var both sync.WaitGroup
		both.Go(func() { l.requests(c) })
		both.Go(func() { l.answers(c) })
		l.workers.Go(func() {
			both.Wait()
			l.mu.Lock()
			delete(l.conns, c)
			l.mu.Unlock()
		})
	}
}

// present is the harm of the moment and what tells that it has changed.
func (l *link) present() (harm, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.harm, l.changed
}

// wait returns when the harm has changed, the time is up, or the link closes.
func (l *link) wait(changed <-chan struct{}, limit time.Duration) {
	var timeout <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-changed:
	case <-timeout:
	case <-l.done:
	}
}

// requests carries frames to the broker until one side ends. Where it is the
// client, even by kill -9, the broker still gets and answers what it sent.
func (l *link) requests(c *linked) {
	in := bufio.NewReaderSize(c.client, 64<<10)
	for {
		payload, err := readFrame(in)
		if err != nil {
			if tcp, ok := c.broker.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
			return
		}
		r := parseRequest(payload)
		if !l.passRequest(c, r) {
			continue
		}
		c.mu.Lock()
		c.waiting = append(c.waiting, r)
		c.mu.Unlock()
		if err := writeFrame(c.broker, payload); err != nil {
			c.reset()
			return
		}
	}
}

// passRequest returns when the request may go on, or says that it vanished.
func (l *link) passRequest(c *linked, r request) bool {
	delayed := false
	for {
		select {
		case <-l.done:
			return false
		default:
		}
		now, changed := l.present()
		switch {
		case now.deaf:
			c.mu.Lock()
			c.doomed = true
			c.mu.Unlock()
			return false
		case now.stallTo:
			l.wait(changed, 0)
		case now.hold != nil && now.hold(r):
			l.mu.Lock()
			if l.changed == changed { // counted anew under each harm
				l.held[r.client]++
			}
			l.mu.Unlock()
			l.wait(changed, 0)
		case now.delay > 0 && !delayed:
			l.wait(changed, now.delay)
			delayed = true
		default:
			return true
		}
	}
}

func (l *link) answers(c *linked) {
	defer c.reset()
	in := bufio.NewReaderSize(c.broker, 64<<10)
	for {
		payload, err := readFrame(in)
		if err != nil {
			return
		}
		c.mu.Lock()
		if len(c.waiting) == 0 { // an answer nobody asked for: not Kafka
			c.mu.Unlock()
			return
		}
		r := c.waiting[0]
		c.waiting = c.waiting[1:]
		c.mu.Unlock()
		spoil, pass := l.passAnswer(c)
		if !pass {
			continue
		}
		if spoil != nil {
			if f, changed := spoil(r, payload); changed {
				l.mu.Lock()
				l.seen++
				l.mu.Unlock()
				payload = f.bytes
				if f.half {
					_, _ = c.client.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload[:len(payload)/2]...))
					return
				}
			}
		}
		_ = writeFrame(c.client, payload) // a client that is gone: the next answers still say what became of its requests
	}
}

func (l *link) passAnswer(c *linked) (spoil func(request, []byte) (frame, bool), pass bool) {
	delayed := false
	for {
		select {
		case <-l.done:
			return nil, false
		default:
		}
		now, changed := l.present()
		switch {
		case now.deaf:
			c.mu.Lock()
			c.doomed = true
			c.mu.Unlock()
			return nil, false
		case now.stallFrom:
			l.wait(changed, 0)
		case now.delay > 0 && !delayed:
			l.wait(changed, now.delay)
			delayed = true
		default:
			return now.spoil, true
		}
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 256<<20 {
		return nil, errors.New("not a frame of Kafka")
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(r, payload)
	return payload, err
}

func writeFrame(w io.Writer, payload []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, len(payload)+4), uint32(len(payload))), payload...))
	return err
}

// parseRequest reads the header, as far as there is one.
func parseRequest(payload []byte) request {
	r := request{key: -1, frame: payload}
	if len(payload) < 10 {
		return r
	}
	r.key, r.version = int16(binary.BigEndian.Uint16(payload)), int16(binary.BigEndian.Uint16(payload[2:]))
	r.id = int32(binary.BigEndian.Uint32(payload[4:]))
	if n := int(int16(binary.BigEndian.Uint16(payload[8:]))); n > 0 && len(payload) >= 10+n {
		r.client = string(payload[10 : 10+n])
	}
	return r
}

// body decodes the request, nil if it is none that Kafka knows.
func (r request) body() kmsg.Request {
	req := kmsg.RequestForKey(r.key)
	if req == nil || r.version > req.MaxVersion() {
		return nil
	}
	req.SetVersion(r.version)
	at := 10 + len(r.client)
	if req.IsFlexible() {
		at++ // no tagged fields: none of our clients sends any
	}
	if at > len(r.frame) || req.ReadFrom(r.frame[at:]) != nil {
		return nil
	}
	return req
}

// answer decodes an answer to the request.
func (r request) answer(payload []byte) kmsg.Response {
	req := kmsg.RequestForKey(r.key)
	if req == nil || r.version > req.MaxVersion() {
		return nil
	}
	req.SetVersion(r.version)
	resp := req.ResponseKind()
	at := 4
	if resp.IsFlexible() && r.key != int16(kmsg.ApiVersions) {
		at++
	}
	if at > len(payload) || resp.ReadFrom(payload[at:]) != nil {
		return nil
	}
	return resp
}

// encode makes an answer's frame of a decoded one.
func (r request) encode(resp kmsg.Response) frame {
	payload := binary.BigEndian.AppendUint32(nil, uint32(r.id))
	if resp.IsFlexible() && r.key != int16(kmsg.ApiVersions) {
		payload = append(payload, 0)
	}
	return frame{bytes: resp.AppendTo(payload)}
}

// writesTo tells whether the request is a Produce to the topic, which goes by
// its name or its id.
func (r request) writesTo(topic string, id [16]byte) bool {
	if r.key != int16(kmsg.Produce) {
		return false
	}
	produce, ok := r.body().(*kmsg.ProduceRequest)
	if !ok {
		return false
	}
	for _, t := range produce.Topics {
		if t.Topic == topic || r.version >= 13 && t.TopicID == id {
			return true
		}
	}
	return false
}

// reset resets the connections of all links, once.
func (all links) reset() {
	for _, l := range all {
		l.reset()
	}
}
