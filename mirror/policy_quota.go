package mirror

import "time"

// quotaLimit bounds what a broker can make us wait: brokers never ask for longer
// than their quota's window (quota.window.num times its size, 11 s as it comes).
const quotaLimit = 30 * time.Second

// quota is how long a broker wants to be left alone because of a quota
// (KIP-219: it answers at once and says so). Who does not heed it is not read
// from for as long, and would take that for a broker that hangs.
type quota struct{ until time.Time }

// heed takes in what a response said.
func (q *quota) heed(now time.Time, millis int32) {
	if millis > 0 {
		q.until = now.Add(min(time.Duration(millis)*time.Millisecond, quotaLimit))
	}
}

// left is for how long nothing may be asked for.
func (q *quota) left(now time.Time) time.Duration { return max(0, q.until.Sub(now)) }
