package broker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	keyProduce     = 0
	keyFetch       = 1
	keyAPIVersions = 18

	highestKey = 92

	// maxPlainRequest bounds every request but Produce, whose decoder is our
	// own. kmsg makes an array as long as its sender claims, up to one element
	// for every byte that follows, so that a request can become as many times
	// larger as an element is large. decodeBytes bounds what all connections
	// together decode at a time, counted so.
	maxPlainRequest = 8 << 20
	decodeBytes     = 256 << 20
	decodedElement  = 64
	freeDecode      = 4 << 10 // bytes of requests that are not counted
)

// api is one row of the dispatch table.
type api struct {
	name           string
	oldest, newest int16 // served
	advertised     int16 // lowest version that ApiVersions lists
	serve          func(context.Context, *request) error
	metrics        apiMetrics
}

// table is every API the node offers; what is not here is not advertised. The
// versions are those of Apache Kafka 4.2.
func (n *Node) table() map[int16]api {
	return map[int16]api{
		0:  {name: "Produce", oldest: 3, newest: 13, serve: n.produce},
		1:  {name: "Fetch", oldest: 4, newest: 18, serve: n.fetch},
		2:  {name: "ListOffsets", oldest: 1, newest: 11, serve: plain(n.listOffsets)},
		3:  {name: "Metadata", oldest: 0, newest: 13, serve: plain(n.metadata)},
		8:  {name: "OffsetCommit", oldest: 2, newest: 10, serve: plain(n.offsetCommit)},
		9:  {name: "OffsetFetch", oldest: 1, newest: 10, serve: plain(n.offsetFetch)},
		10: {name: "FindCoordinator", oldest: 0, newest: 6, serve: plain(n.findCoordinator)},
		11: {name: "JoinGroup", oldest: 0, newest: 9, serve: plain(n.joinGroup)},
		12: {name: "Heartbeat", oldest: 0, newest: 4, serve: plain(n.heartbeat)},
		13: {name: "LeaveGroup", oldest: 0, newest: 5, serve: plain(n.leaveGroup)},
		14: {name: "SyncGroup", oldest: 0, newest: 5, serve: plain(n.syncGroup)},
		15: {name: "DescribeGroups", oldest: 0, newest: 6, serve: plain(n.describeGroups)},
		16: {name: "ListGroups", oldest: 0, newest: 5, serve: plain(n.listGroups)},
		17: {name: "SaslHandshake", oldest: 0, newest: 1, serve: plain(n.saslHandshake)},
		18: {name: "ApiVersions", oldest: 0, newest: 4, serve: plain(n.apiVersions)},
		19: {name: "CreateTopics", oldest: 2, newest: 7, serve: plain(n.createTopics)},
		20: {name: "DeleteTopics", oldest: 1, newest: 6, serve: plain(n.deleteTopics)},
		21: {name: "DeleteRecords", oldest: 0, newest: 2, serve: plain(n.deleteRecords)},
		22: {name: "InitProducerId", oldest: 0, newest: 5, serve: plain(n.initProducerID)},
		23: {name: "OffsetForLeaderEpoch", oldest: 2, newest: 4, serve: plain(n.offsetForLeaderEpoch)},
		24: {name: "AddPartitionsToTxn", oldest: 0, newest: 5, serve: plain(n.addPartitionsToTxn)},
		25: {name: "AddOffsetsToTxn", oldest: 0, newest: 4, serve: plain(n.addOffsetsToTxn)},
		26: {name: "EndTxn", oldest: 0, newest: 5, serve: plain(n.endTxn)},
		27: {name: "WriteTxnMarkers", oldest: 1, newest: 2, serve: plain(n.writeTxnMarkers)},
		28: {name: "TxnOffsetCommit", oldest: 0, newest: 5, serve: plain(n.txnOffsetCommit)},
		32: {name: "DescribeConfigs", oldest: 1, newest: 4, serve: plain(n.describeConfigs)},
		33: {name: "AlterConfigs", oldest: 0, newest: 2, serve: plain(n.alterConfigs)},
		35: {name: "DescribeLogDirs", oldest: 1, newest: 4, serve: plain(n.describeLogDirs)},
		37: {name: "CreatePartitions", oldest: 0, newest: 3, serve: plain(n.createPartitions)},
		42: {name: "DeleteGroups", oldest: 0, newest: 2, serve: plain(n.deleteGroups)},
		44: {name: "IncrementalAlterConfigs", oldest: 0, newest: 1, serve: plain(n.incrementalAlterConfigs)},
		47: {name: "OffsetDelete", oldest: 0, newest: 0, serve: plain(n.offsetDelete)},
		60: {name: "DescribeCluster", oldest: 0, newest: 2, serve: plain(n.describeCluster)},
		61: {name: "DescribeProducers", oldest: 0, newest: 0, serve: plain(n.describeProducers)},
		65: {name: "DescribeTransactions", oldest: 0, newest: 0, serve: plain(n.describeTransactions)},
		66: {name: "ListTransactions", oldest: 0, newest: 2, serve: plain(n.listTransactions)},
		75: {name: "DescribeTopicPartitions", oldest: 0, newest: 0, serve: plain(n.describeTopicPartitions)},
	}
}

// loadTable fills the lookup array. Produce is advertised from version 0,
// though 0 to 2 are refused: librdkafka chooses codecs by the lower bound (KAFKA-18659).
func (n *Node) loadTable() {
	for key, a := range n.table() {
		a.advertised = a.oldest
		if key == keyProduce {
			a.advertised = 0
		}
		a.metrics = n.metrics.forAPI(a.name)
		n.apis[key] = &a
	}
}

// api is the row of a key, nil when it is not offered.
func (n *Node) api(key int16) *api {
	if key < 0 || key > highestKey {
		return nil
	}
	return n.apis[key]
}

// plain makes a connection-level handler of one that maps a decoded request to
// its response. A Kafka error is data in the response; a Go error closes the
// connection.
func plain[Q any, P interface {
	*Q
	kmsg.Request
}](serve func(context.Context, *request, P) (kmsg.Response, error)) func(context.Context, *request) error {
	return func(ctx context.Context, r *request) error {
		q := P(new(Q))
		if err := r.decode(ctx, q); err != nil {
			return err
		}
		resp, err := serve(ctx, r, q)
		if err != nil || resp == nil {
			return err
		}
		return r.conn.respond(r, resp)
	}
}

// decode reads the request's body into q.
func (r *request) decode(ctx context.Context, q kmsg.Request) error {
	if len(r.body) > freeDecode {
		weight := min(int64(len(r.body))*decodedElement, decodeBytes)
		if err := r.conn.node.decoding.Acquire(ctx, weight); err != nil {
			return errClose // draining
		}
		defer r.conn.node.decoding.Release(weight)
	}
	q.SetVersion(r.Version)
	if err := q.ReadFrom(r.body); err != nil {
		return fmt.Errorf("decode %s version %d: %w", r.api.name, r.Version, err)
	}
	return nil
}
