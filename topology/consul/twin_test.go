package consul_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/topology/consul"
)

// twin is the in-memory world, in fake time.
type twin struct{ consul.Hub }

func (w twin) client(t *testing.T, instance, stateFile string) (*consul.Client, link) {
	t.Helper()
	client, l := w.Client(instance, ttl, stateFile)
	return client, l
}

func (w twin) destroy(_ *testing.T, life string) { w.Destroy(life) }
func (w twin) loseState(*testing.T)              { w.Forget() }
func (w twin) keys(*testing.T) []string          { return w.Keys() }

func TestTwin(t *testing.T) {
	for _, s := range append(stories(), story{"the state is lost", stateIsLost}) {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { s.tell(t, twin{consul.NewHub()}) })
		})
	}
}

// Without a check, a session alone ends after twice its TTL; a life that cannot
// renew it still ends after one.
func TestSessionWithoutCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := twin{consul.NewHub()}
		a := start(t, unchecked{hub}, "edge-1", "")
		b := start(t, hub, "edge-2", "")
		within(t, soon, "both are there", func() bool { return b.sees(a.id(), b.id()) })
		first := a.id()
		a.link.Silent()
		cut := time.Now()
		within(t, ttl+time.Second, "its life ends", func() bool { return a.id() != first })
		within(t, 2*ttl+time.Second, "the other sees it", func() bool { return b.sees(b.id()) })
		t.Logf("seen after %v", time.Since(cut))
	})
}

// unchecked is a twin whose clients do without checks.
type unchecked struct{ twin }

func (w unchecked) client(t *testing.T, instance, stateFile string) (*consul.Client, link) {
	t.Helper()
	client, l := w.twin.client(t, instance, stateFile)
	client.Unchecked()
	return client, l
}

func TestLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var last uint64
		for range 2 { // two processes
			local := consul.NewLocal("edge-1")
			ctx, stop := context.WithCancel(t.Context())
			err := local.Join(ctx, []byte("info"), func(ctx context.Context, id string, deadline func() time.Time) error {
				return local.Lead(ctx, id, func(ctx context.Context, fence uint64) error {
					if fence <= last {
						t.Errorf("fence %d follows %d", fence, last)
					}
					last = fence
					if err := local.Publish(ctx, fence, id, []byte("all")); err != nil {
						return err
					}
					time.Sleep(30 * time.Hour) // more than the TTL of a single instance
					if ctx.Err() != nil || !time.Now().Before(deadline()) {
						t.Error("a single instance lost its membership")
					}
					return local.Assignment(ctx, id, func(value []byte) error {
						if string(value) != "all" {
							t.Errorf("assigned %q", value)
						}
						stop()
						return nil
					})
				})
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}
